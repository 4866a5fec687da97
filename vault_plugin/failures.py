"""Why the endpoint gave no tokens: as facts, which another process may be told, and in words, which are made of them here.

The facts hold nothing that the endpoint or the user has said: a cause from the list below and numbers.
"""

import json
import re
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

SHORT = 2048  # bytes of an error's body; the documented one, with two tokens behind it, has about 900
_URL = named("url")
_LATER = f"Check {_URL}, or try again later."
_ACCOUNT = f"Check {named('user_id')} and {named('company_name')}: the endpoint may not know them."
_CA = f"Name its CA's PEM file with {named('ca_cert')}; verification cannot be turned off."
_CHECKS = {
    401: f"The endpoint wants no login; check {_URL}.",
    403: "Check that this host may call it (IP allow-list).",
    404: f"Check {_URL}: it is what stands before /access/klearstack/ in your API's address.",
}
DATES = {9, 10}  # OpenSSL's numbers for a certificate whose time has not come, or is over
CLOCK = "Check this host's clock, and the dates of the certificate."
# By OpenSSL's numbers. Its own texts quote host names.
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
# Its page shows no body of the 500, only: "One or Many Required parameters from company name must be missing".
_PARAMETERS = {name: re.compile(name.replace("_", "[ _]?")) for name in ("company_name", "user_id")}
_SENTENCE = re.compile(r"required\s+parameters?\b.{1,200}\bmissing", re.DOTALL)
_COMPLAINT = re.compile(r"\b(missing|required?|must|provide)\b")


class _Kind(NamedTuple):
    error: type[SourceError]
    message: str
    hint: str
    shared: bool = True  # with other processes: what the endpoint did, not what this host or this call lacks


_KINDS = {
    "refused": _Kind(SourceError, "{url} cannot be reached: connection refused.", _LATER),
    "name": _Kind(SourceError, "{url} cannot be reached: its name does not resolve.", _LATER),
    "timeout": _Kind(SourceError, "{url} did not answer in time.", _LATER),
    "deadline": _Kind(
        SourceError,
        "{url} did not answer in time, which the deadline shortened.",
        f"Give more time with {named('deadline')}, or try again later.",
    ),
    "unasked": _Kind(
        SourceError, "{url} could not be asked before the deadline passed.", _LATER, shared=False
    ),
    "unreachable": _Kind(SourceError, "{url} cannot be reached: there is no route to its host.", _LATER),
    "reset": _Kind(SourceError, "{url} reset the connection.", _LATER),
    "tls": _Kind(SourceError, "{url} cannot be reached: TLS failed.", _LATER),
    "broken": _Kind(SourceError, "{url} broke the connection.", _LATER),
    "status": _Kind(SourceError, "{url} answers with status {status}.", _LATER),
    "busy": _Kind(SourceBusyError, "{url} asks to slow down ({status}).", "Try again later."),
    "certificate": _Kind(
        SourceSettingsError,
        "The TLS certificate of {url} does not verify{certificate}.",
        _CA,
    ),
    "client_certificate": _Kind(
        SourceSettingsError,
        "{url} wants a TLS client certificate, and there is none for the endpoint.",
        f"Check {_URL}.",
    ),
    "files": _Kind(
        SourceSettingsError,
        "{url} cannot be reached: the CA is no PEM file that fits.",
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
    "too_long": _Kind(SourceProtocolError, "The answer of {url} is too long to be two tokens.", ""),
    "no_json": _Kind(
        SourceProtocolError,
        "The answer of {url} is not JSON.",
        f"Check {_URL}: is it the API's, not a web page's?",
    ),
    "no_object": _Kind(SourceProtocolError, "The answer of {url} is no JSON object.", ""),
    "no_access_token": _Kind(SourceProtocolError, "The answer of {url} has no `access_token`.", ""),
    "no_refresh_token": _Kind(SourceProtocolError, "The answer of {url} has no `refresh_token`.", ""),
    "redirects": _Kind(
        SourceRefusedError,
        "{url} redirects ({status}), which is not followed.",
        f"Check {_URL}: https, the right host?",
    ),
    "refuses": _Kind(
        SourceRefusedError,
        "{url} refuses (status {status}).",
        f"Check {named('user_id')}, {named('company_name')} and {_URL}.",
    ),
    "parameter": _Kind(
        ParameterMissingError, "{url} misses a required parameter: it does not say which.", _ACCOUNT
    ),
    "parameter_company_name": _Kind(
        ParameterMissingError, "{url} misses a required parameter: company_name.", _ACCOUNT
    ),
    "parameter_user_id": _Kind(
        ParameterMissingError, "{url} misses a required parameter: user_id.", _ACCOUNT
    ),
    "parameter_company_name_user_id": _Kind(
        ParameterMissingError,
        "{url} misses a required parameter: company_name or user_id.",
        _ACCOUNT,
    ),
}


def code_of(failure: Failure) -> str:
    """The stable code of its error; empty for a cause that is not known here."""
    return _KINDS[failure.cause].error.code if failure.cause in _KINDS else ""


def is_shared(failure: Failure, limit: float) -> bool:
    """Whether it meets another caller with the same settings, too, who could wait for a response for `limit` seconds.

    A deadline is its caller's alone, unless the other one has no more time than that.
    """
    if failure.cause == "deadline":
        return limit <= failure.number / 1000
    return _KINDS[failure.cause].shared


def error_of(failure: Failure, url: str) -> SourceError:
    """The error that says it in words, of the endpoint at that URL."""
    kind, number = _KINDS[failure.cause], failure.number
    certificate = f" ({_CERTIFICATES[number]})" if number in _CERTIFICATES else ""
    hint = _CHECKS.get(number, kind.hint) if failure.cause == "refuses" else kind.hint
    hint = CLOCK if failure.cause == "certificate" and number in DATES else hint
    error = kind.error(kind.message.format(url=url, status=number, certificate=certificate), hint=hint)
    error.failure = failure
    if isinstance(error, SourceBusyError):
        error.retry_after = failure.retry_after
    return error


def missing_parameter(body: bytes) -> Failure | None:
    """What a 500 with this body means, if it is of the documented kind: permanent. None for any other: an outage.

    It is short, names a parameter, and is JSON or the documented sentence. An outage's page may name one as well.
    """
    if len(body) > SHORT:
        return None
    text = body.decode(errors="replace").lower()
    named = [name for name, pattern in _PARAMETERS.items() if pattern.search(text)]
    if _is_json(body):
        documented = bool(_COMPLAINT.search(text)) and (bool(named) or "param" in text)
    else:
        documented = bool(named) and not text.lstrip().startswith("<") and bool(_SENTENCE.search(text))
    return Failure("_".join(["parameter", *named]), 500) if documented else None


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | str)
    except (ValueError, RecursionError):
        return False
