"""Why a connection failed, by what was observed."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from vault_plugin.network.responses import WrongSchemeError
from vault_plugin.network.tls import CertificateFileError
from vault_plugin.network.tunnels import NoProxyError, ProxyError

# OpenSSL's names of the alerts by which a server rejects a client certificate, or the lack of one.
_CERTIFICATE_ALERT = (
    r"(?:SSLV3|TLSV1|TLSV13)_ALERT_((?:NO|BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)"
)


class Cause(Enum):
    """Why there is no response."""

    BROKEN = "the connection broke ({})"
    CERTIFICATE = "its TLS certificate does not verify ({})"
    CLIENT_CERTIFICATE = "it rejects the TLS client certificate ({})"
    ERROR = "the connection failed ({2})"
    FILES = "the CA or the client certificate is not a PEM file that can be loaded, or its key is encrypted"
    NAME = "its name does not resolve"
    NO_SOCKET = "there is no socket at that path"
    PERMISSION = "this process has no permission to connect ({2})"
    PROXY_BROKEN = "the proxy {} closed the connection"
    PROXY_DENIES = "the proxy {} does not allow connections to it (status {})"
    PROXY_ERROR = "the connection to the proxy {0} failed ({2})"
    PROXY_FAILS = "the proxy {} could not connect to it (status {})"
    PROXY_FOREIGN = "the server at {} is not an HTTP proxy"
    PROXY_LOGIN = "the proxy {} requires a login, or rejects the one given (status {})"
    PROXY_NAME = "the name of the proxy {} does not resolve"
    PROXY_PERMISSION = "this process has no permission to connect to the proxy {0} ({2})"
    PROXY_REFUSED = "the proxy {} refused the connection"
    PROXY_TIMEOUT = "the proxy {} did not respond in time"
    PROXY_UNREACHABLE = "there is no route to the proxy {}"
    REFUSED = "connection refused"
    RESET = "it reset the connection"
    SCHEME = "it speaks {}"
    TIMEOUT = "no response in time"
    TLS = "TLS failed ({})"
    UNREACHABLE = "there is no route to its host"


class ConnectionFailure(NamedTuple):
    """The cause, and what was observed, in words.

    `number` is OpenSSL's reason to reject a certificate, the status of a proxy, or an errno. A proxy's URL is in `details`.
    """

    cause: Cause
    details: str = ""
    number: int = 0

    @property
    def final(self) -> bool:
        """Whether the next request would fail in the same way."""
        return self.misconfigured or self.cause in {Cause.NAME, Cause.PROXY_NAME}

    @property
    def misconfigured(self) -> bool:
        """Whether a setting is wrong, here or at the server."""
        return self.cause in _MISCONFIGURED

    def __str__(self) -> str:
        return self.cause.value.format(self.details, self.number, os.strerror(self.number))


_MISCONFIGURED = {
    Cause.CERTIFICATE,
    Cause.CLIENT_CERTIFICATE,
    Cause.FILES,
    Cause.PERMISSION,
    Cause.SCHEME,
    Cause.PROXY_DENIES,
    Cause.PROXY_FOREIGN,
    Cause.PROXY_LOGIN,
    Cause.PROXY_PERMISSION,
}
_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH}
_CAUSES = {
    WrongSchemeError: Cause.SCHEME,
    CertificateFileError: Cause.FILES,
    ssl.SSLCertVerificationError: Cause.CERTIFICATE,
    socket.gaierror: Cause.NAME,
    ConnectionRefusedError: Cause.REFUSED,
    FileNotFoundError: Cause.NO_SOCKET,
    NotADirectoryError: Cause.NO_SOCKET,
    TimeoutError: Cause.TIMEOUT,
    ssl.SSLError: Cause.TLS,
}
# Why a proxy cannot be reached; anything else is PROXY_BROKEN.
_OF_PROXY = {
    Cause.ERROR: Cause.PROXY_ERROR,
    Cause.NAME: Cause.PROXY_NAME,
    Cause.PERMISSION: Cause.PROXY_PERMISSION,
    Cause.REFUSED: Cause.PROXY_REFUSED,
    Cause.TIMEOUT: Cause.PROXY_TIMEOUT,
    Cause.UNREACHABLE: Cause.PROXY_UNREACHABLE,
}
_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # the connection was closed, which is no error of TLS


def failure_of(exc: BaseException) -> ConnectionFailure:
    """Why an exchange failed, by the exception that it ended with and those that led to it."""
    for one in _chain(exc):
        if isinstance(one, ProxyError):
            return _failure_of_proxy(one)
        if isinstance(one, ssl.SSLError) and (alert := re.fullmatch(_CERTIFICATE_ALERT, one.reason or "")):
            return ConnectionFailure(Cause.CLIENT_CERTIFICATE, alert[1].replace("_", " ").lower())
        for kind, cause in _CAUSES.items():
            if isinstance(one, kind) and not isinstance(one, _CLOSED):
                return ConnectionFailure(cause, _details(one, cause), getattr(one, "verify_code", 0))
        # An ssl.SSLError has a number of OpenSSL. http.client raises a reset without one where the connection was only closed.
        if isinstance(one, OSError) and one.errno is not None and not isinstance(one, ssl.SSLError):
            return ConnectionFailure(_cause_of(one), number=one.errno)
    return ConnectionFailure(Cause.BROKEN, type(exc).__name__)


def _cause_of(exc: OSError) -> Cause:
    if exc.errno in _NO_ROUTE:
        return Cause.UNREACHABLE
    if isinstance(exc, ConnectionResetError | BrokenPipeError):
        return Cause.RESET
    return Cause.PERMISSION if isinstance(exc, PermissionError) else Cause.ERROR


def _failure_of_proxy(exc: ProxyError) -> ConnectionFailure:
    if isinstance(exc, NoProxyError):
        return ConnectionFailure(Cause.PROXY_FOREIGN, exc.proxy)
    if not exc.status:
        why = failure_of(exc.__context__ or OSError())
        return ConnectionFailure(_OF_PROXY.get(why.cause, Cause.PROXY_BROKEN), exc.proxy, why.number)
    if exc.status in {401, 407}:  # tinyproxy responds with 401 to a wrong login
        return ConnectionFailure(Cause.PROXY_LOGIN, exc.proxy, exc.status)
    passing = exc.status in {408, 429} or (exc.status >= 500 and exc.status not in {501, 505})
    return ConnectionFailure(Cause.PROXY_FAILS if passing else Cause.PROXY_DENIES, exc.proxy, exc.status)


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
