"""Validates the form of Vault's responses in one place, since any server may respond at its address."""

import json
import re
from email.message import Message
from typing import Any, NamedTuple

from vault_plugin.timing.clock import parse_rfc3339

# In Vault's errors for a status 403 where a policy denied the request, and not where Vault does not know the token.
BY_POLICY = ("error occurred", "preflight")


class MalformedError(ValueError):
    """A response that is not in Vault's form. The error does not quote it."""


def parsed(body: bytes) -> Any:
    """The JSON of a body. Raises MalformedError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError from None


def error_body(body: bytes) -> dict[str, Any]:
    """The object in the body of an error, with `errors` as a list of strings. Raises MalformedError if it is no object."""
    content = _dict(parsed(body))
    listed = content.get("errors")
    texts = [error for error in listed if isinstance(error, str)] if isinstance(listed, list) else []
    return content | {"errors": texts}


def errors(body: bytes) -> list[str]:
    """The errors that the body of an error lists; empty if it lists none."""
    try:
        found: list[str] = error_body(body)["errors"]
    except MalformedError:
        return []
    return found


def mount(response: object) -> tuple[str, str, int]:
    """Type, path and KV version of a mount; empty texts if none is described. Raises MalformedError."""
    about = response.get("data") if isinstance(response, dict) else None
    if not isinstance(about, dict):
        return "", "", 0
    version = str(_dict(about.get("options") or {}).get("version") or 1)
    if version not in ("1", "2"):
        raise MalformedError
    return str(about.get("type"))[:100], str(about.get("path"))[:1000].strip("/"), int(version)


def is_versioned(response: object) -> bool:
    """Whether KV v2 responded to a request that only KV v1 understands."""
    warnings = response.get("warnings") if isinstance(response, dict) else None
    return isinstance(warnings, list) and any("versioned K/V" in str(warning) for warning in warnings)


def secret_v1(response: object) -> dict[str, Any] | None:
    """The secret that KV v1 returns; None if there is none. Raises MalformedError."""
    data = _dict(response).get("data")
    return None if data is None else _dict(data)


def secret_v2(response: object) -> dict[str, Any] | None:
    """`metadata` of the newest version and its `data`, None if it is deleted; None if there is no version.

    Raises MalformedError.
    """
    found = secret_v1(response)
    if found is None:
        return None
    data = found.get("data")
    return {
        "metadata": version_metadata(found.get("metadata")),
        "data": None if data is None else _dict(data),
    }


def of_path(response: object) -> dict[str, Any]:
    """KV v2's metadata of a path. Raises MalformedError."""
    found = _dict(_dict(response).get("data"))
    return found | {"custom_metadata": _dict(found.get("custom_metadata") or {})}


def keys(response: object) -> list[str]:
    """The names that a listing returns; a folder's ends in a slash. Raises MalformedError."""
    found = _dict(_dict(response).get("data")).get("keys")
    if not (isinstance(found, list) and all(isinstance(name, str) for name in found)):
        raise MalformedError
    return found


def version_metadata(metadata: object) -> dict[str, Any]:
    """KV v2's metadata of a version. Raises MalformedError."""
    about = _dict(metadata)
    version, created, deletion = (about.get(name) for name in ("version", "created_time", "deletion_time"))
    custom = _dict(about.get("custom_metadata") or {})
    sound = (
        (isinstance(version, int) and not isinstance(version, bool) and version >= 0)
        and parse_rfc3339(created) is not None
        and (deletion == "" or parse_rfc3339(deletion) is not None)
        and all(isinstance(text, str) for text in custom.values())
    )
    if not sound:
        raise MalformedError
    return about | {"custom_metadata": custom}


class Lease(NamedTuple):
    """How long a Vault token is valid without a renewal (seconds; 0: without end), and whether it can be renewed."""

    seconds: float
    renewable: bool


def login(response: object) -> tuple[str, Lease]:
    """The token of a login, which can be sent in a header, and its lease. Raises MalformedError."""
    about = _dict(_dict(response).get("auth"))
    return _sendable(about.get("client_token")), _lease(about, "lease_duration")


def lease_of_renewal(response: object) -> Lease:
    """The lease after a renewal. Raises MalformedError."""
    return _lease(_dict(_dict(response).get("auth")), "lease_duration")


def lease_of_lookup(response: object) -> Lease:
    """The lease of a token that was looked up. Raises MalformedError."""
    return _lease(_dict(_dict(response).get("data")), "ttl")


def _lease(about: dict[str, Any], duration: str) -> Lease:
    seconds = about.get(duration)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return Lease(0.0, renewable=False)
    # Each renewal would be one of the requests that a token with a limited number of them has.
    return Lease(float(seconds), about.get("renewable") is True and not about.get("num_uses"))


def secret_id(response: object) -> str:
    """The AppRole secret id in an unwrapped response. Raises MalformedError."""
    return _sendable(_dict(_dict(response).get("data")).get("secret_id"))


def id_token(body: bytes) -> str | None:
    """The ID token in a response of GitHub Actions; None if there is none."""
    try:
        return _sendable(_dict(parsed(body)).get("value"))
    except MalformedError:
        return None


def wrap_info(response: object, asked: int) -> tuple[str, int, float]:
    """A wrapping token, how long it is valid (whole seconds, at most as many as asked), and its end (Unix seconds).

    Raises MalformedError.
    """
    about = _dict(_dict(response).get("wrap_info"))
    token, ttl, created = about.get("token"), about.get("ttl"), parse_rfc3339(about.get("creation_time"))
    sound = isinstance(token, str) and re.fullmatch(r"[A-Za-z0-9._-]+", token)
    if not (sound and isinstance(ttl, int) and 0 < ttl <= asked and created is not None):
        raise MalformedError
    return str(token), ttl, created + ttl


def index(headers: Message) -> str | None:
    """`X-Vault-Index`, if it can be sent in a later request; else None."""
    found = headers.get("X-Vault-Index") or ""
    return found if re.fullmatch(r"[!-~]{1,1024}", found) else None


def _sendable(text: object) -> str:
    if not (isinstance(text, str) and re.fullmatch(r"[!-~]+", text)):
        raise MalformedError
    return text


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError
    return value
