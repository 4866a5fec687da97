"""What a manifest consists of in every format: rows of fields, and problems, which quote no value."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

IDENTITY_KEYS = ("user_id", "company_name", "file", "name")
# A key without a value must not silently get its default: YAML and JSON can leave the key out. In CSV an empty cell is
# the only way to leave a value out.
NEVER_EMPTY = ("user_id", "company_name", "address")
EMPTY = "is null or empty: set a value, or remove the key"
TWICE = "appears more than once"
MAX_LINE = 64 * 1024  # bytes of a line of JSON, characters of a line of CSV


class Row(NamedTuple):
    """One mapping of strings. `section` is `defaults`, `targets` or `identities`; empty fields are left out.

    In the section `name`, which is no mapping, there is one field of that name.
    """

    section: str
    line: int
    fields: dict[str, str]


class Problem(NamedTuple):
    """What is invalid, and where; `key` is empty if it concerns no single field. No value is quoted."""

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {f'`{self.key}` ' if self.key else ''}{self.text}"


class Field(NamedTuple):
    """A key and its value; `fault` is what is invalid about the value, empty if it is valid."""

    line: int
    key: str
    value: str
    fault: str = ""


class StopError(Exception):
    """Why the rest of a file cannot be read."""


def make_row(section: str, line: int, fields: Iterable[Field]) -> Iterator[Row | Problem]:
    """Yield the row of these fields, or a problem for each invalid one."""
    values: dict[str, str] = {}
    is_valid = True
    for field in fields:
        fault = TWICE if field.key in values else field.fault
        if not fault and not field.value and field.key in NEVER_EMPTY:
            fault = EMPTY
        if fault:
            is_valid = False
            yield Problem(field.line, shown(field.key), fault)
        values[field.key] = field.value
    if is_valid:
        yield Row(section, line, {key: value for key, value in values.items() if value})


def shown(key: str) -> str:
    """Return a key as messages may quote it: anything but a plain word may be a secret in the wrong place."""
    return key if key.isascii() and key.isidentifier() and len(key) <= 40 else "(not a plain word)"
