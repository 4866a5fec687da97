"""The faults of the simulated endpoint, by name."""

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

ELSEWHERE = "/simulator/elsewhere"  # where the fault "redirect" points; it mints for a client that follows
PARAMETERS = {"user_id": "User Id", "company_name": "Company Name"}

# As in the endpoint's documentation: neither token decodes, and its curly quotes are not JSON.
_DOCUMENTED = {
    "refresh_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTY1NjU3NjA5OCwiaWF0IjoxNjU2NTcdGkiOiI1ZmEzNGM4YjUyOGI0OWM3OWQzNjk5ZWJlNDRlYzUwZiIsInVzZXJfaWQiOjI2fQ.kvpMWPuxenw2c55nucfQCxHLipiO4DhK2TC5NKpJZEk",
    "access_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNjU2NTc2MDM4LCJpYTY1NzU5MTgsImp0aSI6IjQwMWZlYmJhODg4NDQ1MmRhN2Q3ZTA5ZjEwZmYwOWFkIiwidXNlcl9pZCI6MjZ9.sjU6iVbRRp7dTDt-l4rj7K7tKpPpaL7yskjstAUn2Zs",
    "release_version": "7.8.9",
}
_NOT_JSON = json.dumps(_DOCUMENTED, indent=0).replace('"7.8.9"', "“7.8.9”").encode()
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n"

Claims = dict[str, Any]
Pair = dict[str, str]  # the body of a valid response


class Fault(NamedTuple):
    """A deviation from a valid response. `does` describes it; what is left out is as in a valid response."""

    does: str
    status: int = 200
    headers: Mapping[str, str] = {}
    body: Callable[[Pair], object] = lambda pair: pair  # bytes are sent unchanged, anything else as JSON
    spoil: Callable[[Claims], object] = lambda claims: claims  # changes the claims of each token, in place
    # Instead of a response: what is sent at once, and what every 0.2 seconds; or a reset.
    drip: tuple[bytes, bytes] | None = None
    reset: bool = False


NONE = Fault("nothing")


def _error(status: int, message: str = "", headers: Mapping[str, str] = NONE.headers) -> Fault:
    # Errors contain new tokens, too, so that tests find a client that quotes a body in a message or a log.
    phrase = HTTPStatus(status).phrase
    return Fault(f"{status} {phrase}", status, headers, lambda pair: {"error": message or phrase, **pair})


def missing_parameters(names: Iterable[str]) -> str:
    """Return the endpoint's own message for missing parameters."""
    titles = ", ".join(f"“{PARAMETERS[name]}”" for name in names)
    return f"One or Many Required parameters from {titles.lower()} must be missing, E.g error {titles}"


def _without(name: str) -> Callable[[Pair], Pair]:
    return lambda pair: {key: value for key, value in pair.items() if key != name}


def _swap(claims: Claims) -> None:
    claims["token_type"] = {"access": "refresh", "refresh": "access"}[claims["token_type"]]


def _fraction(claims: Claims) -> None:
    claims.update(exp=claims["exp"] + 0.5, iat=claims["iat"] + 0.0)


def _age(claims: Claims) -> None:
    age = claims["exp"] - claims["iat"] + 60
    claims.update(exp=claims["exp"] - age, iat=claims["iat"] - age)


FAULTS: Mapping[str, Fault] = {
    **{str(status): _error(status) for status in (400, 401, 403, 404, 502, 503, 504)},
    "429": _error(429, headers={"Retry-After": "1"}),
    "500": _error(500, "Something went wrong. Please try again later."),
    "another-user": Fault("user_id names another user", spoil=lambda claims: claims.update(user_id=-1)),
    "array": Fault("the JSON is a list", body=lambda pair: [pair]),
    "bad-exp": Fault("exp is a string", spoil=lambda claims: claims.update(exp=str(claims["exp"]))),
    "documented": Fault("the documentation's tokens, which do not decode", body=lambda _: _DOCUMENTED),
    "drip-body": Fault("an endless body, byte by byte", drip=(_OK + b"\r\n", b" ")),
    "drip-header": Fault("an endless header, byte by byte", drip=(_OK + b"X-Drip: ", b".")),
    "empty-access-token": Fault("access_token is empty", body=lambda pair: {**pair, "access_token": ""}),
    "empty-refresh-token": Fault("refresh_token is empty", body=lambda pair: {**pair, "refresh_token": ""}),
    "expired": Fault("the token expired a minute ago", spoil=_age),
    "float-exp": Fault("exp and iat have a fraction (valid)", spoil=_fraction),
    "hang": Fault("no response, and no end", drip=(b"", b"")),
    "html": Fault("a web page", 200, {"Content-Type": "text/html"}, lambda pair: f"<p>{pair}</p>".encode()),
    "nan-exp": Fault("exp is NaN", spoil=lambda claims: claims.update(exp=float("nan"))),
    "no-access-token": Fault("access_token is missing", body=_without("access_token")),
    "no-exp": Fault("exp is missing", spoil=lambda claims: claims.pop("exp")),
    "no-jti": Fault("jti is missing (valid)", spoil=lambda claims: claims.pop("jti")),
    "no-refresh-token": Fault("refresh_token is missing", body=_without("refresh_token")),
    "not-json": Fault("the documentation's sample, which is not JSON", body=lambda _: _NOT_JSON),
    "oversized": Fault("2 MiB of JSON", body=lambda pair: {**pair, "padding": "." * 2**21}),
    "parameter-missing": _error(500, missing_parameters(["company_name"])),
    "redirect": Fault("302 to a path that mints", 302, {"Location": ELSEWHERE}),
    "reset": Fault("the connection is reset", reset=True),
    "truncated": Fault("a truncated body", 200, {"Content-Length": "65536", "Connection": "close"}),
    "wrong-type": Fault("token_type is swapped", spoil=_swap),
}
