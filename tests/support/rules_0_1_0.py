"""The rules by which version 0.1.0 reads what is stored at a path: a copy of them, which never changes.

From its modules answers.py, record.py, tokens.py and warm.py, without what only protects it from malformed responses.
"""

import base64
import json
import re
from datetime import datetime
from math import floor
from typing import Any, NamedTuple

MANAGED_BY = {"managed-by": "klearstack-vault"}
_JWT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")


class ForeignError(Exception):
    """It takes the secret for somebody else's."""


class Found(NamedTuple):
    """A token, and what it knows of it; dates are Unix seconds, `deletion` None where Vault tells none."""

    jwt: str
    expires_at: int
    issued_by: str
    release_version: str
    deletion: float | None


def read(response: dict[str, Any], version: int, user_id: str, company: str, kind: str) -> Found | None:
    """The token in Vault's response; None if it finds that there is none. Raises ForeignError."""
    data, deletion = response["data"], None
    if version == 2:
        metadata, data = data["metadata"], data["data"]
        if not MANAGED_BY.items() <= (metadata["custom_metadata"] or {}).items():
            raise ForeignError
        assert _date(metadata["created_time"]) is not None
        deletion = _date(metadata["deletion_time"])
    if not data:
        return None
    if (data.get("user_id"), data.get("company_name")) != (user_id, company):
        raise ForeignError
    if f"{kind}_token" not in data:
        raise ForeignError
    match = _JWT.fullmatch(data[f"{kind}_token"])
    if match is None:
        return None
    _, claims = (
        json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
        for part in match.groups()
    )
    if claims.get("token_type") != kind or str(claims.get("user_id", user_id)) != user_id:
        return None
    return Found(
        data[f"{kind}_token"], floor(claims["exp"]), data["issued_by"], data["release_version"], deletion
    )


def rejected_at(response: dict[str, Any], version: int) -> float | None:
    """When a token was rejected there, which counts for 60 s (Unix seconds); None if none was."""
    data = response["data"]["data"] if version == 2 else response["data"]
    return _date((data or {}).get("rejected_at", ""))


def _date(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()
