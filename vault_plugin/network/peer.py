"""The servers at the other end: how to connect to one, and why it does not respond."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self, cast
from urllib.parse import urlsplit

from vault_plugin.network.causes import Cause, ConnectionFailure, failure_of, has_closed
from vault_plugin.network.responses import SPEAKS_TLS, WrongSchemeError
from vault_plugin.network.sockets import Socket, connected, remaining, within
from vault_plugin.network.tls import Tls, TlsSocket
from vault_plugin.network.tunnels import tunneled
from vault_plugin.settings.proxies import Proxy
from vault_plugin.timing.deadline import Deadline

MOST = 4096  # bytes of the response to a probe
PROBE = 3.0  # seconds to find out what a server speaks if that is not what its URL says
# How Go, nginx and Apache respond to plain HTTP on a TLS port, with status 400.
_WANTS_TLS = rb"HTTP request (to an HTTPS server|was sent to HTTPS port)|plain HTTP to an SSL-enabled"


class Peer:
    """A server at one address; without `tls`, over plain HTTP. Safe among threads."""

    def __init__(self, host: str, port: int, tls: Tls | None, proxy: Proxy | None = None) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        # Plain HTTP would show the proxy what is sent.
        self.proxy = proxy if tls and proxy and proxy.serves(host, port) else None
        self._responded = False
        self._closings = 0

    @classmethod
    def at(cls, url: str, tls: Tls, proxy: Proxy | None = None) -> Self:
        """The server of that URL, reached through the proxy if that serves it."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return cls(parts.hostname or "", port, tls if secure else None, proxy)

    def connect(self) -> Socket:
        """A new connection. Raises OSError and its branches, among them WrongSchemeError."""
        if self.tls is None:
            return connected(self.host, self.port)
        context = self.tls.context()
        try:
            return self._wrapped(context)
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ConnectionError) as exc:
            # Only a server that speaks TLS sends an alert.
            by_tls = isinstance(exc, ssl.SSLError) and "ALERT" in (exc.reason or "")
            if not (by_tls or isinstance(exc, ConnectionRefusedError)) and self._speaks_plain_http():
                raise WrongSchemeError("plain HTTP, use http://") from None
            raise

    def check(self, status: int, body: bytes) -> None:
        """Raise WrongSchemeError if the response says that the server wants TLS."""
        self._responded = True
        if self.tls is None and status == 400 and re.search(_WANTS_TLS, body):
            raise WrongSchemeError(SPEAKS_TLS)

    def explain(self, exc: BaseException) -> ConnectionFailure:
        """Why an exchange with this server failed, by the exception that it ended with."""
        failure = failure_of(exc)
        if self.tls is None and not self._responded and has_closed(exc):
            # Many TLS servers close the connection. The first time may have any cause; after the second, ask.
            self._closings += 1
            if self._closings == 2 and self._speaks_tls():
                return ConnectionFailure(Cause.SCHEME, SPEAKS_TLS)
        return failure

    def _wrapped(self, context: ssl.SSLContext) -> TlsSocket:
        name = (self.tls and self.tls.server_name) or self.host
        return cast(TlsSocket, context.wrap_socket(self._connected(), server_hostname=name))

    def _connected(self) -> Socket:
        return tunneled(self.proxy, self.host, self.port) if self.proxy else connected(self.host, self.port)

    def _speaks_plain_http(self) -> bool:
        with suppress(OSError), _probing(), self._connected() as probe:
            probe.sendall(b"OPTIONS * HTTP/1.0\r\n\r\n")
            with probe.makefile("rb") as response:
                return response.read(5) == b"HTTP/" and not re.search(_WANTS_TLS, response.read1(MOST))
        return False

    def _speaks_tls(self) -> bool:
        try:
            with _probing(), self._wrapped(_context_of_probes()):
                return True
        except ssl.SSLError as exc:
            return isinstance(exc, ssl.SSLCertVerificationError) or "ALERT" in (exc.reason or "")
        except OSError:
            return False


class LocalPeer(Peer):
    """A server at a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", 80, None)
        self._path = path

    def connect(self) -> Socket:
        """A new connection. Raises OSError and its branches."""
        connection = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection


def _context_of_probes() -> ssl.SSLContext:
    # Whether the certificate verifies does not matter: nothing is sent.
    context = ssl.create_default_context()
    context.sslsocket_class = TlsSocket
    return context


@contextmanager
def _probing() -> Iterator[None]:
    with within(Deadline(min(PROBE, remaining()))):
        yield
