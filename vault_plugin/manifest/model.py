"""A manifest: the identities to get tokens for and the Vaults to store them in, validated before any request is sent.

The file is read twice, once to validate it and once to process it, so that it may have any number of identities. Each
leaves one number of 64 bits in memory, by which duplicates are found.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import BinaryIO

from vault_plugin.errors import SettingsError
from vault_plugin.manifest.entries import Entry, manifest_name_problems, name_problems, read_entry
from vault_plugin.manifest.formats import read_rows
from vault_plugin.manifest.row import IDENTITY_KEYS, Problem, Row, shown
from vault_plugin.manifest.shards import Shard
from vault_plugin.settings import Settings
from vault_plugin.tokens.identity import MAX_SEGMENT
from vault_plugin.tokens.names import is_composed
from vault_plugin.tokens.place import Place

DEFAULT_KEYS = ("company_name", "file")
MAX_SHOWN = 50  # problems; a wrong column makes one of each row
_log = logging.getLogger(__name__)


class Manifest:
    """A valid manifest.

    `targets` gather the settings of each Vault that it names, or of the one that command line and environment name: the first
    call returns what was validated, later ones gather again.
    `count` is the number of identities in this shard, `total` that in all of them; `name` may be empty. Raises SettingsError
    with all problems.
    """

    def __init__(
        self,
        stream: BinaryIO,
        form: str,
        shard: Shard,
        company_name: str | None,
        target_keys: tuple[str, ...],
        settings_of: Callable[..., Settings],
        title: str = "manifest",
    ) -> None:
        """`title` is what messages call it, see formats.title_of."""
        self._stream = stream
        self._form = form
        self._shard = shard
        self._company_name = company_name
        self._keys = {
            "name": ("name",),
            "identities": IDENTITY_KEYS,
            "defaults": DEFAULT_KEYS,
            "targets": target_keys,
        }
        self._warned = False
        self.name = ""
        self.title = title
        self.count = self.total = 0
        self._duplicates = _Duplicates()
        self.targets: list[Callable[[], Settings]] = []
        problems = list(self._problems(settings_of))
        if problems:
            more = f"\n  and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
            lines = "".join(f"\n  {problem}" for problem in problems[:MAX_SHOWN])
            raise SettingsError(f"The {title} is invalid; no request was sent:{lines}{more}")

    def entries(self) -> Iterator[Entry]:
        """Yield this shard's identities in their order. Raises SettingsError if the file has become invalid."""
        for item in self._items():
            if isinstance(item, Problem):
                raise SettingsError(f"The {self.title} was changed while it was read.", hint="Run again.")
            if isinstance(item, Entry) and self._shard.holds(item.identity):
                yield item

    def has(self, place: Place) -> bool:
        """Whether an identity of the manifest, whatever its shard, belongs there. Its hash may be that of another one."""
        return self._duplicates.has(place)

    def _problems(self, settings_of: Callable[..., Settings]) -> Iterator[Problem | str]:
        """Validate the manifest; also count the identities and collect the targets."""
        duplicates = self._duplicates
        for item in self._items():
            if isinstance(item, Problem):
                yield item
            elif isinstance(item, Row) and item.section == "name":
                self.name = item.fields["name"]
                yield from manifest_name_problems(item)
            elif isinstance(item, Row):
                try:
                    yield from duplicates.of_target(item.line, self._add_target(partial(settings_of, item)))
                except SettingsError as exc:
                    yield Problem(item.line, "targets", str(exc))
            else:
                yield from duplicates.of_entry(item)
                self.total += 1
                self.count += self._shard.holds(item.identity)
                self._warn_of_form(item)
        if not self.targets:
            try:
                self._add_target(partial(settings_of, None))
            except SettingsError as exc:
                yield str(exc)

    def _add_target(self, gather: Callable[..., Settings]) -> Settings:
        """Gather a target's settings, and keep them for the first use. Raises SettingsError."""
        target = _Target(gather)
        self.targets.append(target)
        return target.validate()

    def _warn_of_form(self, entry: Entry) -> None:
        """Warn once for the whole manifest, as the other names may be of the same kind."""
        composed = is_composed(entry.identity.user_id) and is_composed(entry.identity.company_name)
        if not composed and not self._warned:
            self._warned = True
            _log.warning(
                "line %d of the %s, and perhaps others: a name that is not NFC-normalized is a different "
                "identity from its NFC form",
                entry.line,
                self.title,
            )

    def _items(self) -> Iterator[Entry | Row | Problem]:
        """Read the file from its start: entries with the defaults filled in, targets, and problems."""
        defaults = {"company_name": self._company_name or ""}
        reported: set[str] = set()  # unknown keys, each of which is reported once
        refused: list[Problem] = []  # of the default company: reported once, and not for each identity
        for row in read_rows(self._stream, self._form, self.title):
            if isinstance(row, Problem):
                yield row
                continue
            for key in row.fields.keys() - self._keys[row.section] - reported:
                reported.add(key)
                yield Problem(row.line, shown(key), f"is not a key of {row.section}")
            if row.section == "defaults":
                defaults |= row.fields
                refused = list(name_problems(row.line, row.fields, *{"company_name"} & row.fields.keys()))
                yield from refused
            elif row.section in ("name", "targets"):
                yield row
            elif not refused or "company_name" in row.fields:
                yield from read_entry(row.line, defaults | row.fields)


class _Target:
    """Gathers a target's settings. Safe among threads.

    The first call returns what was validated, as a FIFO gives a credential once, and a token helper may have effects. Later
    ones, and those with newer flags, gather again. They raise SettingsError.
    """

    def __init__(self, gather: Callable[..., Settings]) -> None:
        self._gather = gather
        self._validated: list[Settings] = []

    def validate(self) -> Settings:
        """Gather the settings. Raises SettingsError."""
        settings = self._gather()
        self._validated.append(settings)
        return settings

    def __call__(self, **newer: str) -> Settings:
        if not newer:
            with suppress(IndexError):  # it was used before
                return self._validated.pop()
        return self._gather(**newer)


class _Duplicates:
    """Finds what appears in more than one line.

    It keeps hashes of 64 bits, salted for each process: two of a million are equal with a chance of 1 in 30 million.
    """

    def __init__(self) -> None:
        self._lines: dict[str, dict[int, int]] = {}  # by what is compared: the first line of each hash
        self._long: set[Place] = set()  # of names that may be hashed in a path
        self._resolved = lru_cache(1024)(os.path.realpath)  # a folder may have several spellings

    def of_entry(self, entry: Entry) -> Iterator[Problem]:
        """Yield a problem for each field that must be unique and is not."""
        if any(
            len(name.encode()) > MAX_SEGMENT // 3
            for name in (entry.identity.user_id, entry.identity.company_name)
        ):
            self._long.add(Place.of(entry.identity))
        yield from self._find(entry.identity, entry.line, "user_id", "and company are the same as in line")
        if entry.file:
            folder, file = os.path.split(entry.file)
            path = self._resolved(folder), file
            yield from self._find(path, entry.line, "file", "is the same as in line")
        if entry.name:  # Prometheus drops one of two metrics with equal labels
            yield from self._find(entry.name, entry.line, "name", "is the same as in line")

    def has(self, place: Place) -> bool:
        """Whether an identity with that place was found."""
        identity = place.identity
        return place in self._long or (
            identity is not None and hash(identity) in self._lines.get("user_id", ())
        )

    def of_target(self, line: int, settings: Settings) -> Iterator[Problem]:
        """Yield a problem if an earlier target stores tokens in the same place."""
        addresses = tuple(sorted(settings.vault_addr))
        place = addresses, settings.vault_namespace or None, settings.mount, settings.path_prefix
        yield from self._find(place, line, "targets", "names the same place in Vault as line")

    def _find(self, what: object, line: int, key: str, text: str) -> Iterator[Problem]:
        lines, number = self._lines.setdefault(key, {}), hash(what)
        if number in lines:
            yield Problem(line, key, f"{text} {lines[number]}")
        else:
            lines[number] = line
