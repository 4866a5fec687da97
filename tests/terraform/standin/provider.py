"""What the stand-ins consist of: schemas, and functions from the values of a block to values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Values = dict[str, Any]  # of all attributes of a block, in JSON's types
# The type and the flags of each attribute, such as "list(string) required"; for blocks in the block, their schema.
Schema = Mapping[str, Any]


class ProviderError(Exception):
    """An error for Terraform to show, at the argument that `path` names if any; as `args`, what tf makes it from."""

    def __init__(self, summary: str, detail: str, *path: str) -> None:
        super().__init__(summary, detail, path)
        self.detail = detail


@dataclass(frozen=True)
class Source:
    """An ephemeral resource: `read` takes its arguments and returns what is computed."""

    schema: Schema
    read: Callable[[Values], Values]


@dataclass(frozen=True)
class Resource:
    """A managed resource: `read` returns its new state or None.

    `write` takes its state before (None: there is none), what is planned, and the arguments.
    """

    schema: Schema
    check: Callable[[Values], None]
    read: Callable[[Values], Values | None]
    write: Callable[[Values | None, Values, Values], Values]
    delete: Callable[[Values], None]
    replaced_by: tuple[str, ...]  # changes of these
    changes: tuple[str, ...]  # with each write


@dataclass(frozen=True)
class Provider:
    """All of one that `tf` cannot serve, by the names of the types."""

    schema: Schema = field(default_factory=dict)
    configure: Callable[[Values], None] = lambda config: None
    ephemeral: Mapping[str, Source] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)


def go_json(value: object) -> str:
    """JSON as Go's encoding/json writes it."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
