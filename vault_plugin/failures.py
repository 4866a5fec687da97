"""Why the endpoint returned no tokens: as facts, which processes share, and as the error that is made of them here.

The facts hold nothing that the endpoint or the user has sent: a cause of the table below, and numbers.
"""

import os
from typing import NamedTuple

from vault_plugin.errors import (
    Failure,
    ParameterMissingError,
    SourceBusyError,
    SourceError,
    SourceProtocolError,
    SourceRefusedError,
    SourceSettingsError,
)
from vault_plugin.wording import named

_URL, _PROXY = named("url"), named("proxy")
_LATER = f"Check {_URL}, or try again later."
_ACCOUNT = f"Check {named('user_id')} and {named('company_name')}: the endpoint may not know them."
_CA = f"Name its CA's PEM file with {named('ca_cert')}; verification cannot be turned off."
_BY_PROXY = f"Check {_PROXY}, or try again later."
_NOT_THROUGH = f"Check {_PROXY}, or exclude the endpoint from it with {named('no_proxy')}."
ALLOW = "Allow this user to connect there, in this host's firewall or security module."
_CHECKS = {
    401: f"The endpoint requires no login; check {_URL}.",
    403: "Check that this host may call it (IP allow-list).",
    404: f"Check {_URL}: it is the part of your API's address before /access/klearstack/.",
}
DATES = {9, 10}  # OpenSSL's numbers for a certificate that is not yet valid, or has expired
OTHER_NAME = {62, 64}  # for one that names another host, or another address
CLOCK = "Check this host's clock and the certificate's dates."
# By OpenSSL's numbers; its own texts quote host names.
_CERTIFICATES = {
    9: "it is not yet valid",
    10: "it has expired",
    18: "it is self-signed",
    19: "its CA is not trusted",
    20: "its CA is not trusted",
    21: "its CA is not trusted",
    23: "it is revoked",
    62: "it is for another host",
    64: "it is for another address",
}


class _Kind(NamedTuple):
    error: type[SourceError]
    message: str
    hint: str
    shared: bool = True  # with other processes: caused by the endpoint, not by this host or this call


_KINDS = {
    "refused": _Kind(SourceError, "{url} cannot be reached: connection refused.", _LATER),
    "no_socket": _Kind(SourceError, "{url} cannot be reached: there is no socket at that path.", _LATER),
    "name": _Kind(SourceError, "{url} cannot be reached: its name does not resolve.", _LATER),
    "timeout": _Kind(SourceError, "{url} did not respond in time.", _LATER),
    "deadline": _Kind(
        SourceError,
        "{url} did not respond in time; the deadline left less than the timeout.",
        f"Allow more time with {named('deadline')}, or try again later.",
    ),
    "unasked": _Kind(
        SourceError, "The deadline passed before a request to {url} was sent.", _LATER, shared=False
    ),
    "unreachable": _Kind(SourceError, "{url} cannot be reached: there is no route to its host.", _LATER),
    "reset": _Kind(SourceError, "{url} reset the connection.", _LATER),
    "tls": _Kind(SourceError, "{url} cannot be reached: TLS failed.", _LATER),
    "broken": _Kind(SourceError, "{url} broke off the connection.", _LATER),
    "error": _Kind(SourceError, "The connection to {url} failed ({reason}).", _LATER, shared=False),
    "permission": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: this process has no permission to connect ({reason}).",
        ALLOW,
        shared=False,
    ),
    "proxy_error": _Kind(
        SourceError,
        "{url} cannot be reached: the connection to the proxy {proxy} failed ({reason}).",
        _BY_PROXY,
        shared=False,
    ),
    "proxy_permission": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: this process has no permission to connect to the proxy {proxy} ({reason}).",
        ALLOW,
        shared=False,
    ),
    "proxy_refused": _Kind(
        SourceError, "{url} cannot be reached: the proxy {proxy} refused the connection.", _BY_PROXY
    ),
    "proxy_name": _Kind(
        SourceError, "{url} cannot be reached: the name of the proxy {proxy} does not resolve.", _BY_PROXY
    ),
    "proxy_timeout": _Kind(
        SourceError,
        "{url} cannot be reached: the proxy {proxy} did not respond in time.",
        _BY_PROXY,
        shared=False,  # nothing says whether it was the timeout or the caller's deadline
    ),
    "proxy_unreachable": _Kind(
        SourceError, "{url} cannot be reached: there is no route to the proxy {proxy}.", _BY_PROXY
    ),
    "proxy_broken": _Kind(
        SourceError, "{url} cannot be reached: the proxy {proxy} closed the connection.", _BY_PROXY
    ),
    "proxy_fails": _Kind(
        SourceError,
        "{url} cannot be reached: the proxy {proxy} could not connect to it (status {status}).",
        _LATER,
    ),
    "proxy_denies": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: the proxy {proxy} does not allow connections to it (status {status}).",
        f"Have it allow CONNECT to that host and port. {_NOT_THROUGH}",
    ),
    "proxy_login": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: the proxy {proxy} requires a login, or rejects the one given (status {status}).",
        f"Put user and password into its URL, in the variable of {_PROXY}: http://user:password@host:port.",
        shared=False,  # the login is this caller's
    ),
    "proxy_foreign": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: the server at {proxy} is not an HTTP proxy.",
        _NOT_THROUGH,
    ),
    "status": _Kind(SourceError, "{url} responded with status {status}.", _LATER),
    "busy": _Kind(
        SourceBusyError,
        "{url} rejected the request: rate limit exceeded (status {status}).",
        "Try again later.",
    ),
    "certificate": _Kind(
        SourceSettingsError,
        "The TLS certificate of {url} does not verify{certificate}.",
        _CA,
    ),
    "client_certificate": _Kind(
        SourceSettingsError,
        "{url} requires a TLS client certificate, which is not supported for the endpoint.",
        f"Check {_URL}.",
    ),
    "files": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: the CA is not a PEM file that can be loaded.",
        f"Check {named('ca_cert')}.",
        shared=False,
    ),
    "speaks_plain": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: it speaks plain HTTP, use http://.",
        f"Check {_URL}.",
    ),
    "speaks_tls": _Kind(
        SourceSettingsError, "{url} cannot be reached: it speaks TLS, use https://.", f"Check {_URL}."
    ),
    "too_long": _Kind(SourceProtocolError, "The response of {url} is too long for two tokens.", ""),
    "no_json": _Kind(
        SourceProtocolError,
        "The response of {url} is not JSON.",
        f"Check that {_URL} is the address of the API, not of a web page.",
    ),
    "no_object": _Kind(SourceProtocolError, "The response of {url} is not a JSON object.", ""),
    "no_access_token": _Kind(SourceProtocolError, "The response of {url} has no `access_token`.", ""),
    "no_refresh_token": _Kind(SourceProtocolError, "The response of {url} has no `refresh_token`.", ""),
    "redirects": _Kind(
        SourceRefusedError,
        "{url} responded with a redirect (status {status}), which is not followed.",
        f"Check the scheme (https) and the host of {_URL}.",
    ),
    "refuses": _Kind(
        SourceRefusedError,
        "{url} rejected the request (status {status}).",
        f"Check {named('user_id')}, {named('company_name')} and {_URL}.",
    ),
    "parameter": _Kind(
        ParameterMissingError, "{url} reports a missing parameter without naming it.", _ACCOUNT
    ),
    "parameter_company_name": _Kind(
        ParameterMissingError, "{url} reports a missing parameter: company_name.", _ACCOUNT
    ),
    "parameter_user_id": _Kind(
        ParameterMissingError, "{url} reports a missing parameter: user_id.", _ACCOUNT
    ),
    "parameter_company_name_user_id": _Kind(
        ParameterMissingError,
        "{url} reports a missing parameter: company_name or user_id.",
        _ACCOUNT,
    ),
}


def code_of(failure: Failure) -> str:
    """Return the stable code of its error; empty for an unknown cause."""
    return _KINDS[failure.cause].error.code if failure.cause in _KINDS else ""


def is_shared(failure: Failure, limit: float) -> bool:
    """Whether another caller with the same settings would fail alike, who could wait `limit` seconds for a response.

    A passed deadline concerns its caller alone, unless the other one has no more time.
    """
    if failure.cause == "deadline":
        return limit <= failure.number / 1000
    return _KINDS[failure.cause].shared


def error_of(failure: Failure, url: str, proxy: object = None) -> SourceError:
    """Make the error that describes the failure of the endpoint at that URL, reached through that proxy, if any."""
    kind, number = _KINDS[failure.cause], failure.number
    certificate = f" ({_CERTIFICATES[number]})" if number in _CERTIFICATES else ""
    hint = _CHECKS.get(number, kind.hint) if failure.cause == "refuses" else kind.hint
    hint = CLOCK if failure.cause == "certificate" and number in DATES else hint
    error = kind.error(
        kind.message.format(
            url=url, proxy=proxy, status=number, certificate=certificate, reason=os.strerror(number)
        ),
        hint=hint,
    )
    error.failure = failure
    if isinstance(error, SourceBusyError):
        error.retry_after = failure.retry_after
    return error
