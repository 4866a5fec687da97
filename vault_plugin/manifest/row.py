"""What a manifest's text is made of, in whatever form: rows of fields, and problems, which quote no value."""

from typing import NamedTuple

IDENTITY_KEYS = ("user_id", "company_name", "file", "name")
# What must not silently be taken from elsewhere: YAML and JSON can leave a key out, CSV can only leave a cell empty.
NEVER_EMPTY = ("user_id", "company_name", "address")
EMPTY = "is null or empty: give a value, or leave it out"


class Row(NamedTuple):
    """One mapping of texts. `section` is `defaults`, `targets` or `identities`; empty fields are left out."""

    section: str
    line: int
    fields: dict[str, str]


class Problem(NamedTuple):
    """What is wrong, where; `key` is empty if it is no single field. No value is quoted."""

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {f'`{self.key}` ' if self.key else ''}{self.text}"


class StopError(Exception):
    """Why a text cannot be read from here on."""


def shown(name: str) -> str:
    """A key as it may be quoted: what is no plain word might be a secret in the wrong place."""
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else "(no plain word)"
