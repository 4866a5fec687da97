"""A manifest's text as rows of fields: YAML, JSON Lines or CSV, a row at a time and to the letter.

Nothing is held but the row at hand, so that any number of rows streams through.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO

from vault_plugin.manifest.csv_header import encoding_fault, header_fault, named
from vault_plugin.manifest.row import EMPTY, IDENTITY_KEYS, NEVER_EMPTY, Problem, Row, StopError, shown
from vault_plugin.manifest.yaml_rows import read_yaml

MAX_LINE = 64 * 1024  # bytes of a line of JSON, characters of a line of CSV
_BROKEN = "is no CSV from here on"
# As spreadsheets show a number that is too long for its cell, and then save it; the sign of decimals is the locale's.
_ROUNDED = re.compile(r"-?\d([.,]\d+)?E\+\d{2,3}", re.ASCII)


def read_jsonl(stream: BinaryIO) -> Iterator[Row | Problem]:
    """An object per line."""
    for line, raw in enumerate(_lines(stream), 1):
        if raw is not None and not raw.strip():
            continue
        try:
            # Numbers as they are written: a user id is no quantity. Pairs, since a key may stand there twice.
            pairs = json.loads(raw or b"", parse_int=str, object_pairs_hook=tuple)
        except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
            yield Problem(line, "", f"is not JSON in UTF-8 (of at most {MAX_LINE} bytes)")
            continue
        if not isinstance(pairs, tuple):
            yield Problem(line, "", "is no JSON object")
            continue
        fields: dict[str, str] = {}
        sound = True
        for name, value in pairs:
            if name in fields or not isinstance(value, str | None):
                sound = False
                what = "stands there twice" if name in fields else "is no text and no whole number"
                yield Problem(line, shown(name), what)
            elif not value and name in NEVER_EMPTY:
                sound = False
                yield Problem(line, name, EMPTY)
            fields[name] = value or ""
        if sound:
            yield Row("identities", line, {name: text for name, text in fields.items() if text})


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines; None for one that is too long."""
    while raw := stream.readline(MAX_LINE):
        part = raw
        while len(part) == MAX_LINE and not part.endswith(b"\n"):
            part = stream.readline(MAX_LINE)
        yield raw if part is raw else None


def read_csv(stream: BinaryIO) -> Iterator[Row | Problem]:
    """A header line with the keys, then a record each. Blank records, and blank columns at the end, are left out."""
    text = io.TextIOWrapper(
        stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
    )  # spreadsheets begin with a byte order mark
    lines = _lines_of_csv(text)
    records = csv.reader([])
    try:
        first = next(lines, "")
        fault = encoding_fault(first)
        if not fault:
            records = csv.reader(chain([first], lines), strict=True)
            names, fault = _header(records, first)
        if fault:  # all that follows would be wrong for this reason
            yield Problem(1, "", fault)
            return
        for record in records:
            if any(cell.strip() for cell in record):
                yield _row_of_csv(names, record, records.line_num)
    except csv.Error:  # its text may quote
        yield Problem(records.line_num + 1, "", _BROKEN)
    except StopError as exc:
        yield Problem(records.line_num + 1, "", str(exc))
    finally:
        if not stream.closed:  # as it is after a run that was stopped
            text.detach()  # it is not ours to close


def _header(records: Iterator[list[str]], first: str) -> tuple[list[str], str]:
    """The columns' names, and what is wrong with them; `first` is the first line."""
    try:
        names = named(next(records, []))
    except csv.Error:  # as for names in quotes with other separators
        parts = [part.strip(" \t\r\n\"'") for part in first.split(",")]
        return [], header_fault(named(parts), IDENTITY_KEYS) or _BROKEN
    return names, header_fault(names, IDENTITY_KEYS)


def _lines_of_csv(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise StopError(f"has more than {MAX_LINE // 1024} KiB")
        yield line


def _row_of_csv(names: list[str], record: list[str], line: int) -> Row | Problem:
    if len(record) < len(names) or any(cell.strip() for cell in record[len(names) :]):
        columns = f"{len(names)} column{'s' if len(names) > 1 else ''}"
        return Problem(line, "", f"has {len(record)} field{'s' if len(record) > 1 else ''} under {columns}")
    if not _is_utf8(record):
        return Problem(line, "", "is no UTF-8")
    fields = {name: value for name, value in zip(names, record, strict=False) if value}
    if _ROUNDED.fullmatch(fields.get("user_id", "")):
        return Problem(
            line, "user_id", "was rounded by a spreadsheet: make the column a text one, and enter it again"
        )
    return Row("identities", line, fields)


def _is_utf8(record: list[str]) -> bool:
    """Whether no byte had to be escaped: a decoder that fails does so by the block, and knows of no line."""
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return False
    return True


FORMATS: dict[str, Callable[[BinaryIO], Iterator[Row | Problem]]] = {
    "yaml": read_yaml,
    "jsonl": read_jsonl,
    "csv": read_csv,
}
