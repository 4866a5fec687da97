"""A manifest: whose tokens are wanted and where they go, checked as a whole before anything is contacted.

It is read twice, once to check it and once to work through it, so that any number of identities streams through. What
is kept of each is a number of 64 bits, to find the ones that stand there twice.
"""

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple, cast

from vault_plugin.errors import SettingsError, UsageError
from vault_plugin.manifest.row import IDENTITY_KEYS, Problem, Row, shown
from vault_plugin.manifest.rows import FORMATS
from vault_plugin.manifest.shards import Shard
from vault_plugin.settings import Settings
from vault_plugin.tokens.identity import Identity, encode
from vault_plugin.tokens.names import checked, is_composed

DEFAULT_KEYS = ("company_name", "file")
MAX_NAME = 64  # characters; it becomes a label of metrics
MAX_SHOWN = 50  # problems; a wrong column makes one of each row
_log = logging.getLogger(__name__)
_SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


class Entry(NamedTuple):
    """An identity, the line on which it stands, the path of the file in which `watch` keeps its token, and the name
    by which metrics call it.
    """

    line: int
    identity: Identity
    file: str | None
    name: str | None = None


class Manifest:
    """A manifest without problems. `targets` gather the settings of each Vault it names, or of the one that command line
    and environment name; `count` is the number of identities in this shard.
    """

    def __init__(
        self,
        stream: BinaryIO,
        form: str,
        shard: Shard,
        company_name: str | None,
        target_keys: tuple[str, ...],
        settings_of: Callable[..., Settings],
    ) -> None:
        self._stream = stream
        self._form = form
        self._shard = shard
        self._company_name = company_name
        self._keys = {"identities": IDENTITY_KEYS, "defaults": DEFAULT_KEYS, "targets": target_keys}
        self._warned = False
        self.count = 0
        self.targets: list[Callable[[], Settings]] = []
        problems = list(self._checked(settings_of))
        if problems:
            more = f"\n  and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
            raise SettingsError(
                "The manifest will not do, and nothing was contacted:"
                + "".join(f"\n  {problem}" for problem in problems[:MAX_SHOWN])
                + more,
            )

    def entries(self) -> Iterator[Entry]:
        """This shard's identities, in their order. Raises SettingsError if the file was changed meanwhile."""
        for item in self._items():
            if isinstance(item, Problem):
                raise SettingsError("The manifest was changed while it was being worked through.")
            if isinstance(item, Entry) and self._shard.holds(item.identity):
                yield item

    def _checked(self, settings_of: Callable[..., Settings]) -> Iterator[Problem | str]:
        identities: dict[int, int] = {}
        files: dict[int, int] = {}
        names: dict[int, int] = {}
        places: dict[int, int] = {}
        resolved = lru_cache(1024)(os.path.realpath)  # two spellings of a folder are one
        for item in self._items():
            if isinstance(item, Problem):
                yield item
            elif isinstance(item, Row):
                self.targets.append(partial(settings_of, item))
                try:
                    place = _place(settings_of(item))
                except SettingsError as exc:
                    yield Problem(item.line, "targets", str(exc))
                else:
                    yield from _again(places, place, item.line, "targets", "names the place in Vault of line")
            else:
                yield from _again(
                    identities, item.identity, item.line, "user_id", "and company are those of line"
                )
                if item.file:
                    folder, file = os.path.split(item.file)
                    yield from _again(files, (resolved(folder), file), item.line, "file", "is that of line")
                if item.name:  # Prometheus drops one of two metrics with equal labels
                    yield from _again(names, item.name, item.line, "name", "is that of line")
                self.count += self._shard.holds(item.identity)
                self._warn_of_form(item)
        if not self.targets:
            self.targets.append(partial(settings_of, None))
            try:
                settings_of(None)
            except SettingsError as exc:
                yield str(exc)

    def _warn_of_form(self, entry: Entry) -> None:
        """Once for the whole manifest: they may be many."""
        composed = is_composed(entry.identity.user_id) and is_composed(entry.identity.company_name)
        if not composed and not self._warned:
            self._warned = True
            _log.warning(
                "line %d of the manifest, and perhaps others: a name that is not NFC-normalized is a different "
                "identity from its NFC form",
                entry.line,
            )

    def _items(self) -> Iterator[Entry | Row | Problem]:
        self._stream.seek(0)
        defaults = {"company_name": self._company_name or ""}
        told: set[str] = set()  # each key that nobody knows, once
        refused: list[Problem] = []  # the default company, which is said once
        for row in FORMATS[self._form](self._stream):
            if isinstance(row, Problem):
                yield row
                continue
            for name in row.fields.keys() - self._keys[row.section] - told:
                told.add(name)
                yield Problem(row.line, shown(name), f"is no key of {row.section}")
            if row.section == "defaults":
                defaults |= row.fields
                refused = list(_name_problems(row.line, row.fields, *{"company_name"} & row.fields.keys()))
                yield from refused
            elif row.section == "targets":
                yield row
            elif not refused or "company_name" in row.fields:
                yield from _entries(row.line, defaults | row.fields)


def _entries(line: int, fields: dict[str, str]) -> Iterator[Entry | Problem]:
    """One of either; a problem for each field that is missing or refused."""
    problems = list(_name_problems(line, fields, "user_id", "company_name", *{"name"} & fields.keys()))
    if len(fields.get("name", "")) > MAX_NAME:
        problems.append(Problem(line, "name", f"has more than {MAX_NAME} characters"))
    if problems:
        yield from problems
        return
    identity = Identity(fields["user_id"], fields["company_name"])
    try:
        yield Entry(line, identity, _file(fields.get("file"), identity), fields.get("name"))
    except ValueError as exc:
        yield Problem(line, "file", str(exc))


def _name_problems(line: int, fields: dict[str, str], *names: str) -> Iterator[Problem]:
    for name in names:
        if not fields.get(name):
            yield Problem(line, name, "is missing")
            continue
        try:
            checked(fields[name])
        except ValueError as exc:
            yield Problem(line, name, str(exc))


def _file(template: str | None, identity: Identity) -> str | None:
    """The path, with the identity in it as it is in Vault's paths, so that no name leads elsewhere. Raises ValueError."""
    if not template:
        return None
    names = {"{user_id}": identity.user_id, "{company_name}": identity.company_name}
    path = re.sub(r"\{\w*\}", lambda found: encode(names.get(found[0]) or "") or found[0], template)
    unfit = any(
        char in "{}\0" or "\ud800" <= char <= "\udfff" for char in path
    )  # half a surrogate: no file name
    if unfit or not path.startswith("/") or ".." in PurePath(path).parts:
        raise ValueError("must be an absolute path, in which {user_id} and {company_name} may stand")
    return str(PurePath(path))  # one file is one text


def _again(seen: dict[int, int], what: object, line: int, key: str, text: str) -> Iterator[Problem]:
    # By hashes of 64 bits, salted for each process: that two of a million meet is one chance in 30 million.
    number = hash(what)
    if number in seen:
        yield Problem(line, key, f"{text} {seen[number]}")
    else:
        seen[number] = line


def _place(settings: Settings) -> tuple[object, ...]:
    return tuple(sorted(settings.vault_addr)), settings.vault_namespace, settings.mount, settings.path_prefix


def format_of(path: str, form: str | None) -> str:
    """The format that was named, or that of the file's name; standard input is YAML. Raises UsageError."""
    found = form or ("yaml" if path == "-" else _SUFFIXES.get(Path(path).suffix.lower()))
    if found is None:
        raise UsageError(
            "The manifest's name does not tell its format.", hint=f"--format takes {', '.join(FORMATS)}."
        )
    return found


@contextmanager
def rewindable(path: str) -> Iterator[BinaryIO]:
    """A manifest's file; `-` is standard input, which goes into an unnamed file first, as a pipe does.

    Raises SettingsError if it cannot be read.
    """
    try:
        file: BinaryIO = sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115  closed below
        if path == "-" or not file.seekable():
            copy = tempfile.TemporaryFile()  # noqa: SIM115  as above
            with file:
                shutil.copyfileobj(file, copy)
            file = cast(BinaryIO, copy)
    except (OSError, AttributeError) as exc:  # AttributeError: standard input is closed
        raise SettingsError(f"The manifest cannot be read ({getattr(exc, 'strerror', 'closed')}).") from None
    with file:
        yield file
