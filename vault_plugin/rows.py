"""A manifest's text as rows of fields: YAML, JSON Lines or CSV, a row at a time and to the letter.

Nothing is held but the row at hand, so that any number of rows streams through. YAML is read as a stream of events:
no types are guessed (`026` stays `026`), and there are no anchors, tags or merges to be clever with.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import yaml

MAX_LINE = 64 * 1024  # bytes of a line of JSON
# What must not silently be taken from elsewhere: YAML and JSON can leave a key out, CSV can only leave a cell empty.
NEVER_EMPTY = ("user_id", "company_name", "address")
_EMPTY = "is null or empty: give a value, or leave it out"
_NULLS = ("", "~", "null", "Null", "NULL")
_MAP, _LIST = yaml.MappingStartEvent, yaml.SequenceStartEvent
_START = (_MAP, _LIST)
_END = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
# libyaml's parser is ten times as fast; its package may come without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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


def shown(name: str) -> str:
    """A key as it may be quoted: what is no plain word might be a secret in the wrong place."""
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else "(no plain word)"


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
                yield Problem(line, name, _EMPTY)
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
    """A header line with the keys, then a record each."""
    text = io.TextIOWrapper(
        stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
    )  # spreadsheets begin with a byte order mark
    records = csv.reader(text, strict=True)
    try:
        header = next(records, [])
        if "" in header or len(set(header)) < max(1, len(header)):
            yield Problem(1, "", "must name the columns, each once")
        if not _is_utf8(header):
            yield Problem(1, "", "is no UTF-8")
        for record in records:
            if not record:
                continue
            if len(record) != len(header):
                yield Problem(records.line_num, "", f"has {len(record)} fields under {len(header)} columns")
                continue
            if not _is_utf8(record):
                yield Problem(records.line_num, "", "is no UTF-8")
                continue
            fields = dict(zip(header, record, strict=True))
            yield Row(
                "identities", records.line_num, {name: value for name, value in fields.items() if value}
            )
    except csv.Error:  # its text may quote
        yield Problem(records.line_num + 1, "", "is no CSV from here on")
    finally:
        if not stream.closed:  # as it is after a run that was stopped
            text.detach()  # it is not ours to close


def _is_utf8(record: list[str]) -> bool:
    """Whether no byte had to be escaped: a decoder that fails does so by the block, and knows of no line."""
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_yaml(stream: BinaryIO) -> Iterator[Row | Problem]:
    """A mapping with the sections, of which `identities` comes last."""
    events = _Events(stream)
    try:
        yield from _document(events)
    except yaml.YAMLError as exc:  # its text may quote
        at = getattr(
            exc, "position", None
        )  # of a byte that is no text: no event is near, blocks are decoded whole
        yield Problem(events.line if at is None else _line_of(stream, at), "", "is no YAML from here on")


def _line_of(stream: BinaryIO, position: int) -> int:
    stream.seek(0)
    line = 1
    while raw := stream.readline(min(position, MAX_LINE)):
        position -= len(raw)
        line += raw.endswith(b"\n")
    return line


FORMATS: dict[str, Callable[[BinaryIO], Iterator[Row | Problem]]] = {
    "yaml": read_yaml,
    "jsonl": read_jsonl,
    "csv": read_csv,
}


class _Events:
    """YAML's events, one after the other, and the line at which they stand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._parsed = yaml.parse(stream, Loader=_LOADER)
        self.line = 1

    def next(self) -> yaml.Event:
        event: yaml.Event = next(self._parsed)
        mark: Any = event.start_mark
        self.line = mark.line + 1
        return event

    def skip(self, event: yaml.Event) -> None:
        """All that belongs to a node whose first event this is."""
        depth = int(isinstance(event, _START))
        while depth:
            event = self.next()
            depth += isinstance(event, _START) - isinstance(event, _END)


def _document(events: _Events) -> Iterator[Row | Problem]:
    events.next()  # the stream's start
    if isinstance(events.next(), yaml.StreamEndEvent):
        yield Problem(1, "", "holds nothing: a manifest has `identities`")
        return
    if not isinstance(events.next(), _MAP):
        yield Problem(events.line, "", "is no mapping with `identities`")
        return
    seen: set[str] = set()
    while not isinstance(key := events.next(), yaml.MappingEndEvent):
        line, name = events.line, _text(key) or ""
        if name in seen:
            yield Problem(line, shown(name), "stands there twice")
        elif name in ("defaults", "targets") and "identities" in seen:
            yield Problem(line, name, "must stand before `identities`, which is read as a stream")
        seen.add(name)
        events.skip(key)
        yield from _section(name, line, events)
    if "identities" not in seen:
        yield Problem(events.line, "identities", "is missing")
    events.next()  # the document's end
    if not isinstance(events.next(), yaml.StreamEndEvent):
        yield Problem(events.line, "", "begins another document: a manifest is one")


def _section(name: str, line: int, events: _Events) -> Iterator[Row | Problem]:
    value = events.next()
    if name == "defaults" and isinstance(value, _MAP):
        yield from _fields(name, events)
    elif name in ("targets", "identities") and isinstance(value, _LIST):
        while not isinstance(item := events.next(), yaml.SequenceEndEvent):
            if isinstance(item, _MAP):
                yield from _fields(name, events)
            else:
                yield Problem(events.line, name, "has an item that is no mapping")
                events.skip(item)
    else:
        events.skip(value)
        kinds = {"defaults": "must be a mapping", "targets": "must be a list", "identities": "must be a list"}
        yield Problem(line, shown(name), kinds.get(name, "is no section of a manifest"))


def _fields(section: str, events: _Events) -> Iterator[Row | Problem]:
    line = events.line
    fields: dict[str, str] = {}
    sound = True
    while not isinstance(key := events.next(), yaml.MappingEndEvent):
        at, name = events.line, _text(key) or ""
        events.skip(key)
        value = events.next()
        text = _text(value)
        events.skip(value)
        if name in fields:
            sound = False
            yield Problem(at, shown(name), "stands there twice")
        if text is None:
            sound = False
            yield Problem(at, shown(name), "is no plain text or number, without tag or alias")
        elif not text and name in NEVER_EMPTY:
            sound = False
            yield Problem(at, name, _EMPTY)
        fields[name] = text or ""
    if sound:
        yield Row(section, line, {name: text for name, text in fields.items() if text})


def _text(event: yaml.Event) -> str | None:
    """What stands there; empty for YAML's null; None if it is no scalar, or one with a tag."""
    if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "tag:yaml.org,2002:str"):
        return None
    plain = event.style in (None, "") and event.tag is None
    return "" if plain and event.value in _NULLS else str(event.value)
