"""The identities of a manifest: each with its line, the file for its token and its name in metrics."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import NamedTuple

from vault_plugin.manifest.row import Problem, Row
from vault_plugin.tokens.identity import Identity, encode
from vault_plugin.tokens.names import checked

MAX_NAME = 64  # characters; it becomes a label of metrics


class Entry(NamedTuple):
    """An identity and its line, the path of the file in which `watch` keeps its token, and its name in metrics."""

    line: int
    identity: Identity
    file: str | None
    name: str | None = None


def read_entry(line: int, fields: Mapping[str, str]) -> Iterator[Entry | Problem]:
    """Yield the entry of these fields, or a problem for each field that is missing or invalid."""
    problems = list(name_problems(line, fields, "user_id", "company_name", *{"name"} & fields.keys()))
    problems += too_long(line, fields)
    if problems:
        yield from problems
        return
    identity = Identity(fields["user_id"], fields["company_name"])
    try:
        yield Entry(line, identity, _file(fields.get("file"), identity), fields.get("name"))
    except ValueError as exc:
        yield Problem(line, "file", str(exc))


def too_long(line: int, fields: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem if the `name` is too long."""
    if len(fields.get("name", "")) > MAX_NAME:
        yield Problem(line, "name", f"has more than {MAX_NAME} characters")


def manifest_name_problems(row: Row) -> Iterator[Problem]:
    """Yield what is invalid about the name of a manifest, which Vault stores."""
    problems = [*name_problems(row.line, row.fields, "name"), *too_long(row.line, row.fields)]
    if not problems and not row.fields["name"].isprintable():  # Vault accepts no other custom_metadata
        problems.append(Problem(row.line, "name", "has a character that cannot be printed"))
    yield from problems


def name_problems(line: int, fields: Mapping[str, str], *keys: str) -> Iterator[Problem]:
    """Yield a problem for each of these fields that is missing or has invisible characters."""
    for key in keys:
        if not fields.get(key):
            yield Problem(line, key, "is missing")
            continue
        try:
            checked(fields[key])
        except ValueError as exc:
            yield Problem(line, key, str(exc))


def _file(template: str | None, identity: Identity) -> str | None:
    """Return the path, with the identity encoded as in Vault's paths, so that no name leads to another folder.

    Raises ValueError.
    """
    if not template:
        return None
    names = {"{user_id}": identity.user_id, "{company_name}": identity.company_name}
    path = re.sub(r"\{\w*\}", lambda found: encode(names.get(found[0]) or "") or found[0], template)
    # Half of a surrogate pair cannot be in a file name.
    is_unfit = any(char in "{}\0" or "\ud800" <= char <= "\udfff" for char in path)
    if is_unfit or not path.startswith("/") or ".." in PurePath(path).parts:
        raise ValueError("must be an absolute path; it may contain {user_id} and {company_name}")
    return str(PurePath(path))  # one spelling per file
