"""Notifications to systemd (sd_notify): datagrams to the socket that NOTIFY_SOCKET names, if it is set."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Notifies the service manager, if there is one. A notification that cannot be sent is ignored."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # an abstract socket
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID") or str(os.getpid())
        # Half of the seconds after which systemd restarts the service (sd_watchdog_enabled(3)); None without a watchdog.
        self.watchdog = (
            int(usec) / 2e6 if usec.isdecimal() and int(usec) and pid == str(os.getpid()) else None
        )

    def ready(self) -> None:
        """Notify that each identity has been tried once."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify of a reload, which `ready` ends."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def send_status(self, status: str, *, alive: bool) -> None:
        """Send a status line, and while `alive` notify the watchdog."""
        self._send(*["WATCHDOG=1"] * alive, f"STATUS={status}")

    def stopping(self) -> None:
        """Notify that the service is stopping."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto("\n".join(lines).encode(), self._address)
