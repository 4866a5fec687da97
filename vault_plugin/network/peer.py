"""The servers that are asked, and why one does not respond, by what was observed."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

from vault_plugin.network.responses import SPEAKS_TLS, WrongSchemeError
from vault_plugin.network.sockets import (
    CertificateFileError,
    Socket,
    Tls,
    TlsSocket,
    connected,
    remaining,
    within,
)
from vault_plugin.timing.deadline import Deadline

PROBE = 1.0  # seconds to find out what a server speaks that does not speak what its URL says
# What Go, nginx and Apache answer to plain HTTP on a TLS port, with status 400.
_WANTS_TLS = re.compile(
    rb"HTTP request (to an HTTPS server|was sent to HTTPS port)|plain HTTP to an SSL-enabled"
)

# What OpenSSL calls the alerts by which a server refuses a client certificate, or the lack of one.
_CERTIFICATE_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_ALERT_((?:NO|BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)"
)


class Cause(Enum):
    """Why there is no response."""

    BROKEN = "the connection broke ({})"
    CERTIFICATE = "its TLS certificate does not verify ({})"
    CLIENT_CERTIFICATE = "it does not accept our TLS client certificate ({})"
    FILES = "the CA or the client certificate is no PEM file that fits"
    NAME = "its name does not resolve"
    REFUSED = "connection refused"
    RESET = "it reset the connection"
    SCHEME = "it speaks {}"
    TIMEOUT = "no answer in time"
    TLS = "TLS failed ({})"
    UNREACHABLE = "there is no route to its host"


class Failure(NamedTuple):
    """The cause, and what was observed, in words; `number` is OpenSSL's reason against a certificate."""

    cause: Cause
    details: str = ""
    number: int = 0

    @property
    def final(self) -> bool:
        """Whether asking again cannot help."""
        return self.misconfigured or self.cause is Cause.NAME

    @property
    def misconfigured(self) -> bool:
        """Whether a setting is wrong, here or at the server."""
        return self.cause in {Cause.CERTIFICATE, Cause.CLIENT_CERTIFICATE, Cause.FILES, Cause.SCHEME}

    def __str__(self) -> str:
        return self.cause.value.format(self.details)


_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH}
_CAUSES = {
    WrongSchemeError: Cause.SCHEME,
    CertificateFileError: Cause.FILES,
    ssl.SSLCertVerificationError: Cause.CERTIFICATE,
    socket.gaierror: Cause.NAME,
    ConnectionRefusedError: Cause.REFUSED,
    FileNotFoundError: Cause.REFUSED,  # of a Unix socket
    TimeoutError: Cause.TIMEOUT,
    ssl.SSLError: Cause.TLS,
}


class Peer:
    """A server at one address, without `tls` over plain HTTP. Safe among threads."""

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self._answered = False
        self._closings = 0

    @classmethod
    def at(cls, url: str, tls: Tls) -> Self:
        """The server of that URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if secure else 80), tls if secure else None)

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
            if not isinstance(exc, ConnectionRefusedError) and self._answers_plain_http():
                raise WrongSchemeError("plain HTTP, use http://") from None
            raise

    def check(self, status: int, body: bytes) -> None:
        """Look at a response. Raises WrongSchemeError if it says that this is not the right scheme."""
        self._answered = True
        if self.tls is None and status == 400 and _WANTS_TLS.search(body):
            raise WrongSchemeError(SPEAKS_TLS)

    def explain(self, exc: BaseException) -> Failure:
        """Why an exchange with this server failed, by the exception that came of it."""
        failure = _explained(exc)
        if self.tls is None and not self._answered and _has_closed(exc):
            # Many a TLS server just closes. One closing may be anything; the second is worth a look.
            self._closings += 1
            if self._closings == 2 and self._answers_tls():
                return Failure(Cause.SCHEME, SPEAKS_TLS)
        return failure

    def _wrapped(self, context: ssl.SSLContext) -> TlsSocket:
        plain = connected(self.host, self.port)
        return cast(TlsSocket, context.wrap_socket(plain, server_hostname=self.host))

    def _answers_plain_http(self) -> bool:
        with suppress(OSError), _briefly(), connected(self.host, self.port) as probe:
            probe.sendall(b"OPTIONS * HTTP/1.0\r\n\r\n")
            with probe.makefile("rb") as answer:
                return answer.read(5) == b"HTTP/"
        return False

    def _answers_tls(self) -> bool:
        try:
            with _briefly(), self._wrapped(_context_of_probes()):
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
        """As above."""
        connection = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection


def _context_of_probes() -> ssl.SSLContext:
    context = ssl.create_default_context()  # whether it verifies does not matter: nothing is sent
    context.sslsocket_class = TlsSocket
    return context


@contextmanager
def _briefly() -> Iterator[None]:
    with within(Deadline(min(PROBE, remaining()))):
        yield


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and those that it came from: requests and urllib3 wrap what a connection raises."""
    found: BaseException | None = exc
    while found is not None:
        yield found
        found = found.__context__


def _has_closed(exc: BaseException) -> bool:
    return any(isinstance(one, ConnectionResetError | BrokenPipeError) for one in _chain(exc))


_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # a mere closing, whatever it is called


def _explained(exc: BaseException) -> Failure:
    for one in _chain(exc):
        if isinstance(one, ssl.SSLError) and (alert := _CERTIFICATE_ALERT.fullmatch(one.reason or "")):
            return Failure(Cause.CLIENT_CERTIFICATE, alert[1].replace("_", " ").lower())
        for kind, cause in _CAUSES.items():
            if isinstance(one, kind) and not isinstance(one, _CLOSED):
                return Failure(cause, _details(one, cause), getattr(one, "verify_code", 0))
        number = one.errno if isinstance(one, OSError) else None
        if number in _NO_ROUTE:
            return Failure(Cause.UNREACHABLE)
        if number is not None and isinstance(one, ConnectionResetError | BrokenPipeError):
            return Failure(Cause.RESET)  # http.client calls a mere closing a reset, too, without a number
    return Failure(Cause.BROKEN, type(exc).__name__)


def _details(exc: BaseException, cause: Cause) -> str:
    if cause is Cause.TLS:
        return str(getattr(exc, "reason", None)).replace("_", " ").lower()
    return str(exc) if cause is Cause.SCHEME else getattr(exc, "verify_message", "")
