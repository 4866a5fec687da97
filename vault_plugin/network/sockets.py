"""Sockets on which one deadline covers everything: name resolution, connecting, TLS, and each byte of a response.

A socket's own timeout bounds each wait alone: a server that sends a byte now and then is waited for without end. Here
each wait gets what is left of the deadline that `within` sets for the thread. This holds for http.client and for urllib3,
in headers, bodies, chunks and interim responses alike, since both read all of them through the socket.
"""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline

LONGEST_WAIT = 2e6  # seconds (23 days); a socket takes no more than 2**31 ms
_local = threading.local()


def remaining() -> float:
    """Seconds left of this thread's deadline."""
    left: float = _local.deadline.left()
    return left


@contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """Bound all that this thread does with connections inside. Past the deadline, it raises TimeoutError."""
    before = getattr(_local, "deadline", None)
    _local.deadline = deadline
    try:
        yield
    finally:
        _local.deadline = before


class Socket(socket.socket):
    """A stream socket that waits for as long as the thread's deadline allows. `ended`: the peer has closed it."""

    ended = False

    def connect(self, address: Any) -> None:
        self.limit_wait()
        super().connect(address)

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.limit_wait()
        count = super().recv_into(*arguments, **options)
        self.ended = not count
        return count

    def send(self, *arguments: Any) -> int:
        self.limit_wait()
        return super().send(*arguments)

    def sendall(self, *arguments: Any) -> None:
        self.limit_wait()
        super().sendall(*arguments)

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing since the last response: no end, no bytes that belong to no request."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return not poll.poll(0)

    def limit_wait(self) -> None:
        """Bound the next operation by the time that is left. Raises TimeoutError if there is none."""
        left = remaining()
        if not left:
            raise TimeoutError
        self.settimeout(min(left, LONGEST_WAIT))


def connected(host: str, port: int) -> Socket:
    """Connect to the first address of that name that accepts. Raises OSError and its branches."""
    failure: OSError = OSError("the name has no address")
    addresses = resolved(host, port)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = Socket(family, kind, protocol)
        try:
            # An address that does not respond must not use up the time of the others.
            with within(Deadline(remaining() / (len(addresses) - number))):
                connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            connection.close()
            failure = exc
        except BaseException:  # such as what a signal handler raises
            connection.close()
            raise
        else:
            return connection
    raise failure


def resolved(host: str, port: int) -> list[Any]:
    """What the name resolves to, as socket.getaddrinfo returns it. Raises OSError and its branches."""
    # Python encodes a text by a codec that takes time to load. The hosts of settings are ASCII.
    name = host.encode()
    with suppress(socket.gaierror):  # of an IP address at once
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return blocking.call(
        f"name {host}",
        lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM),
        remaining(),
    )
