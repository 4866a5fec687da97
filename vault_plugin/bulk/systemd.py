"""What a service tells systemd (sd_notify): a datagram to the socket that NOTIFY_SOCKET names, if any does."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Tells the service manager; without one nothing is told, and one that does not listen is no failure of ours."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # an abstract socket
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID") or str(os.getpid())
        # Half of the time after which systemd takes us for dead (sd_watchdog_enabled(3)); seconds, None if it does not.
        self.watchdog = (
            int(usec) / 2e6 if usec.isdecimal() and int(usec) and pid == str(os.getpid()) else None
        )

    def ready(self) -> None:
        """All identities have been tried once."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A new configuration is being read; `ready` comes next."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def tell_status(self, status: str, *, alive: bool) -> None:
        """For people, and, while `alive`, for the watchdog."""
        self._tell(*["WATCHDOG=1"] * alive, f"STATUS={status}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto("\n".join(lines).encode(), self._address)
