"""Loopback ports for servers that must know their port before they start, such as the nodes of a cluster."""

import random
import socket

from support import notes

# Below the range from which the kernel takes ports by itself, so that no client's connection gets one of them.
_RANGE = range(20000, 32768)
_TRIES = 100
_reserved: list[socket.socket] = []  # until this process ends


def require_loopback() -> None:
    """Skip where no port of the loopback address can be opened and reached."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname()).close()
    except OSError as failure:
        raise notes.skipped(
            f"no port of 127.0.0.1 can be reached ({failure.strerror})", "what talks to a server"
        ) from None


def own_port() -> int:
    """A port that nobody listens on, and that no other process which asks here is given while this one lives."""
    require_loopback()
    for _ in range(_TRIES):
        port = random.choice(_RANGE)
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # An abstract address: one holder on the whole machine, and nothing to remove afterwards.
            reservation.bind(f"\0klearstack-vault-tests-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return port
    raise notes.skipped(
        f"no free port was found from {_RANGE.start} to {_RANGE.stop - 1}", "clusters and TLS"
    )
