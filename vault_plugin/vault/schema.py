"""The shape of Vault's answers, checked in one place: what stands at its address may answer anything."""

import json
import re
from email.message import Message
from typing import Any

from vault_plugin.timing.clock import parse_rfc3339

_HEADER_VALUE = re.compile(r"[!-~]+")
_INDEX = re.compile(r"[!-~]{1,1024}")


class MalformedError(ValueError):
    """An answer that Vault does not give. It never quotes it."""


def parsed(body: bytes) -> Any:
    """The JSON of a body. Raises MalformedError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError from None


def refusal(body: bytes) -> dict[str, Any]:
    """The object of an error's body, whose `errors` is a list of strings. Raises MalformedError if it is no object."""
    answer = _dict(parsed(body))
    errors = answer.get("errors")
    listed = errors if isinstance(errors, list) else []
    return answer | {"errors": [error for error in listed if isinstance(error, str)]}


def mount(answer: object) -> tuple[str, str, int]:
    """Type, path and KV version of a mount; empty texts if none is described. Raises MalformedError."""
    about = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(about, dict):
        return "", "", 0
    version = str(_dict(about.get("options") or {}).get("version") or 1)
    if version not in ("1", "2"):
        raise MalformedError
    return str(about.get("type"))[:100], str(about.get("path"))[:1000].strip("/"), int(version)


def secret_v1(answer: object) -> dict[str, Any] | None:
    """What KV v1 holds; None if there is nothing. Raises MalformedError."""
    data = _dict(answer).get("data")
    return None if data is None else _dict(data)


def secret_v2(answer: object) -> dict[str, Any] | None:
    """`metadata` of the newest version and `data`, None if it is gone; None if there is no version.

    Raises MalformedError.
    """
    found = secret_v1(answer)
    if found is None:
        return None
    data = found.get("data")
    return {
        "metadata": version_metadata(found.get("metadata")),
        "data": None if data is None else _dict(data),
    }


def version_metadata(metadata: object) -> dict[str, Any]:
    """What KV v2 tells of a version. Raises MalformedError."""
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


def login_token(token: object) -> str:
    """A token that can be sent in a header. Raises MalformedError."""
    if not (isinstance(token, str) and _HEADER_VALUE.fullmatch(token)):
        raise MalformedError
    return token


def index(headers: Message) -> str | None:
    """`X-Vault-Index`, if it can be sent back."""
    found = headers.get("X-Vault-Index") or ""
    return found if _INDEX.fullmatch(found) else None


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError
    return value
