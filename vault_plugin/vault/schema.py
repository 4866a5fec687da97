"""Validates the form of Vault's responses in one place, since any server may respond at its address."""

import json
import re
from email.message import Message
from typing import Any

from vault_plugin.timing.clock import parse_rfc3339


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


def login_token(response: object) -> str:
    """The token of a login, which can be sent in a header. Raises MalformedError."""
    token = _dict(_dict(response).get("auth")).get("client_token")
    if not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
        raise MalformedError
    return token


def index(headers: Message) -> str | None:
    """`X-Vault-Index`, if it can be sent in a later request; else None."""
    found = headers.get("X-Vault-Index") or ""
    return found if re.fullmatch(r"[!-~]{1,1024}", found) else None


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError
    return value
