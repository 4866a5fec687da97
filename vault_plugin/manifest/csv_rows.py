"""A manifest in CSV: a header line and a record per identity, of which only one is in memory."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from vault_plugin.manifest.csv_header import encoding_fault, header_fault, named
from vault_plugin.manifest.row import IDENTITY_KEYS, MAX_LINE, Problem, Row, StopError

_BROKEN = "is not valid CSV from here on"
# As spreadsheets show a number that is too long for its cell, and then save it; the decimal sign depends on the locale.
_ROUNDED = re.compile(r"-?\d([.,]\d+)?E\+\d{2,3}", re.ASCII)


def read_csv(stream: BinaryIO) -> Iterator[Row | Problem]:
    """Yield a row per record. Blank records, and blank columns at the end, are skipped."""
    # Spreadsheets write a byte order mark.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _lines(text)
    records = csv.reader([])
    try:
        first = next(lines, "")
        fault = encoding_fault(first)
        if not fault:
            records = csv.reader(chain([first], lines), strict=True)
            names, fault = _header(records, first)
        if fault:  # all records would be invalid for this reason
            yield Problem(1, "", fault)
            return
        for record in records:
            if any(cell.strip() for cell in record):
                yield _row(names, record, records.line_num)
    except csv.Error:  # whose text may quote values
        yield Problem(records.line_num + 1, "", _BROKEN)
    except StopError as exc:
        yield Problem(records.line_num + 1, "", str(exc))
    finally:
        if not stream.closed:  # as it is after a run that was stopped
            text.detach()  # the caller closes the stream


def _header(records: Iterator[list[str]], first: str) -> tuple[list[str], str]:
    """Return the columns' names, and what is invalid about them; `first` is the first line."""
    try:
        names = named(next(records, []))
    except csv.Error:  # for example of quoted names with another separator
        parts = [part.strip(" \t\r\n\"'") for part in first.split(",")]
        return [], header_fault(named(parts), IDENTITY_KEYS) or _BROKEN
    return names, header_fault(names, IDENTITY_KEYS)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise StopError(f"has more than {MAX_LINE // 1024} KiB")
        yield line


def _row(names: list[str], record: list[str], line: int) -> Row | Problem:
    if len(record) < len(names) or any(cell.strip() for cell in record[len(names) :]):
        columns = f"{len(names)} column{'s' if len(names) > 1 else ''}"
        return Problem(line, "", f"has {len(record)} field{'s' if len(record) > 1 else ''} under {columns}")
    if not _is_utf8(record):
        return Problem(line, "", "is not UTF-8")
    fields = {name: value for name, value in zip(names, record, strict=False) if value}
    if _ROUNDED.fullmatch(fields.get("user_id", "")):
        fault = "was rounded by a spreadsheet: format the column as text and enter the value again"
        return Problem(line, "user_id", fault)
    return Row("identities", line, fields)


def _is_utf8(record: list[str]) -> bool:
    """Whether no byte was escaped. A strict decoder would fail for a whole block, without a line number."""
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return False
    return True
