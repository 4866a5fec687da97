"""A manifest in JSON Lines: one object per line, of which only one is in memory."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from vault_plugin.manifest.row import MAX_LINE, Field, Problem, Row, make_row


def read_jsonl(stream: BinaryIO) -> Iterator[Row | Problem]:
    """Yield a row per line, with strings exactly as given. Blank lines are skipped."""
    for line, raw in enumerate(_lines(stream), 1):
        if raw is not None and not raw.strip():
            continue
        try:
            # Numbers exactly as given: a user id is not a quantity. Pairs, since a key may appear more than once.
            pairs = json.loads(raw or b"", parse_int=str, object_pairs_hook=tuple)
        except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
            yield Problem(line, "", f"is not JSON in UTF-8 (of at most {MAX_LINE} bytes)")
            continue
        if isinstance(pairs, tuple):
            yield from make_row("identities", line, (_field(line, key, value) for key, value in pairs))
        else:
            yield Problem(line, "", "is not a JSON object")


def _field(line: int, key: str, value: object) -> Field:
    if value is None or isinstance(value, str):
        return Field(line, key, value or "")
    return Field(line, key, "", "is neither a string nor a whole number")


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines; None for one that is too long."""
    while raw := stream.readline(MAX_LINE):
        part = raw
        while len(part) == MAX_LINE and not part.endswith(b"\n"):
            part = stream.readline(MAX_LINE)
        yield raw if part is raw else None
