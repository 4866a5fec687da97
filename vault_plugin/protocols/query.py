"""Queries of other programs: JSON objects of bounded size."""

import json
from typing import Any

from vault_plugin.errors import QueryError

MAX_QUERY = 64 * 1024  # bytes
ON_STDIN = "The query on standard input"


def json_object(text: str | bytes, name: str = ON_STDIN, limit: int = MAX_QUERY) -> dict[str, Any]:
    """Parse a JSON object of at most `limit` bytes; `name` is what messages call it.

    Raises QueryError, which does not quote the text.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
        query = json.loads(raw) if len(raw) <= limit else None
    except (ValueError, RecursionError):
        # from None: the cause quotes the text.
        raise QueryError(f"{name} is not JSON.") from None
    if len(raw) > limit:
        raise QueryError(f"{name} is longer than {limit // 1024} KiB.")
    if not isinstance(query, dict):
        raise QueryError(f"{name} is not a JSON object.")
    return query
