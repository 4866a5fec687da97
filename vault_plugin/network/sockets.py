"""Connections on which one limit covers everything: name resolution, connecting, TLS, and each byte of a response.

A socket's own timeout bounds each wait alone: a server that sends a byte now and then is waited for without end. Here
each wait gets what is left of the limit that `within` sets for the thread. This holds for http.client and for urllib3,
in headers, bodies, chunks and interim responses alike, since both read all of them through the socket.
"""

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline

_local = threading.local()


class CertificateFileError(OSError):
    """A file of certificates or keys cannot be loaded."""


def remaining() -> float:
    """Seconds left of this thread's limit."""
    left: float = _local.limit.left()
    return left


@contextmanager
def within(limit: Deadline) -> Iterator[None]:
    """Bound all that this thread does with connections inside; past the limit it raises TimeoutError."""
    before = getattr(_local, "limit", None)
    _local.limit = limit
    try:
        yield
    finally:
        _local.limit = before


class Socket(socket.socket):
    """A stream socket that waits for as long as the thread's limit allows. `ended`: the peer has closed."""

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
        """Whether nothing has come that nobody asked for: a closing, or bytes that belong to no request."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return not poll.poll(0)

    def limit_wait(self) -> None:
        """Let the next operation take no longer than what is left. Raises TimeoutError if that is nothing."""
        left = remaining()
        if not left:
            raise TimeoutError
        self.settimeout(left)


class TlsSocket(Socket, ssl.SSLSocket):
    """The same with TLS, made by the context of `Tls`."""

    def do_handshake(self, block: bool = False) -> None:
        self.limit_wait()
        super().do_handshake(block)

    def is_quiet(self) -> bool:
        """As above."""
        return not self.pending() and super().is_quiet()


class Tls:
    """What TLS connections to one server are verified with, loaded at the first use."""

    def __init__(
        self, ca_file: str | None, client_cert: str | None = None, client_key: str | None = None
    ) -> None:
        self._files = ca_file, client_cert, client_key
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises CertificateFileError if a file is none that fits."""
        if self._context is None:
            # Also a file may make its reader wait.
            self._context = blocking.call("certificates", self._load, remaining())
        return self._context

    def _load(self) -> ssl.SSLContext:
        ca_file, cert, key = self._files
        try:
            context = ssl.create_default_context(cafile=ca_file)
            if cert is not None:
                context.load_cert_chain(cert, key)
        except (ssl.SSLError, OSError):
            raise CertificateFileError from None
        context.sslsocket_class = TlsSocket
        return context


def connected(host: str, port: int) -> Socket:
    """Connect to the first address of that name that answers. Raises OSError and its branches."""
    failure: OSError = OSError("the name has no address")
    addresses = _resolved(host, port)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = Socket(family, kind, protocol)
        try:
            # One address that swallows all must not take the time of the others.
            with within(Deadline(remaining() / (len(addresses) - number))):
                connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            connection.close()
            failure = exc
        except BaseException:  # what a signal handler raises
            connection.close()
            raise
        else:
            return connection
    raise failure


def _resolved(host: str, port: int) -> list[Any]:
    try:
        with suppress(socket.gaierror):  # of an IP address at once
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return blocking.call(
            f"name {host}",
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            remaining(),
        )
    except UnicodeError:  # a label that is empty or too long
        raise socket.gaierror from None
