"""Why a connection failed, by what was observed."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from vault_plugin.network.responses import WrongSchemeError
from vault_plugin.network.tls import CertificateFileError

# OpenSSL's names of the alerts by which a server rejects a client certificate, or the lack of one.
_CERTIFICATE_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_ALERT_((?:NO|BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)"
)


class Cause(Enum):
    """Why there is no response."""

    BROKEN = "the connection broke ({})"
    CERTIFICATE = "its TLS certificate does not verify ({})"
    CLIENT_CERTIFICATE = "it rejects the TLS client certificate ({})"
    FILES = "the CA or the client certificate is not a PEM file that can be loaded"
    NAME = "its name does not resolve"
    NO_SOCKET = "there is no socket at that path"
    REFUSED = "connection refused"
    RESET = "it reset the connection"
    SCHEME = "it speaks {}"
    TIMEOUT = "no response in time"
    TLS = "TLS failed ({})"
    UNREACHABLE = "there is no route to its host"


class ConnectionFailure(NamedTuple):
    """The cause, and what was observed, in words; `number` is OpenSSL's reason to reject a certificate."""

    cause: Cause
    details: str = ""
    number: int = 0

    @property
    def final(self) -> bool:
        """Whether the next request would fail in the same way."""
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
    FileNotFoundError: Cause.NO_SOCKET,
    TimeoutError: Cause.TIMEOUT,
    ssl.SSLError: Cause.TLS,
}
_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # the connection was closed, which is no error of TLS


def failure_of(exc: BaseException) -> ConnectionFailure:
    """Why an exchange failed, by the exception that it ended with and those that led to it."""
    for one in _chain(exc):
        if isinstance(one, ssl.SSLError) and (alert := _CERTIFICATE_ALERT.fullmatch(one.reason or "")):
            return ConnectionFailure(Cause.CLIENT_CERTIFICATE, alert[1].replace("_", " ").lower())
        for kind, cause in _CAUSES.items():
            if isinstance(one, kind) and not isinstance(one, _CLOSED):
                return ConnectionFailure(cause, _details(one, cause), getattr(one, "verify_code", 0))
        number = one.errno if isinstance(one, OSError) else None
        if number in _NO_ROUTE:
            return ConnectionFailure(Cause.UNREACHABLE)
        # http.client raises a reset without a number where the connection was only closed.
        if number is not None and isinstance(one, ConnectionResetError | BrokenPipeError):
            return ConnectionFailure(Cause.RESET)
    return ConnectionFailure(Cause.BROKEN, type(exc).__name__)


def has_closed(exc: BaseException) -> bool:
    """Whether the server closed or reset the connection."""
    return any(isinstance(one, ConnectionResetError | BrokenPipeError) for one in _chain(exc))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and those that it came from: requests and urllib3 wrap what a connection raises."""
    found: BaseException | None = exc
    while found is not None:
        yield found
        found = found.__context__


def _details(exc: BaseException, cause: Cause) -> str:
    if cause is Cause.TLS:
        return str(getattr(exc, "reason", None)).replace("_", " ").lower()
    return str(exc) if cause is Cause.SCHEME else getattr(exc, "verify_message", "")
