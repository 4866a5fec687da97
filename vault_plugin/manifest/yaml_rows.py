"""A manifest in YAML as rows of fields, read as a stream of events.

No types are guessed (`026` stays `026`), there are no anchors, tags or merges to be clever with, and nothing is held in
memory but a text of bounded size.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import yaml

from vault_plugin.manifest.bounded import BoundedStream
from vault_plugin.manifest.row import EMPTY, NEVER_EMPTY, Problem, Row, StopError, shown

MAX_SCALAR = 64 * 1024  # bytes of a text
MAX_DEPTH = 100  # of lists and mappings in each other, which no manifest has
# Bytes that the parser may read from one event to the next. It reads up to 64 KiB ahead.
_BUDGET = MAX_SCALAR + 3 * 64 * 1024
_BLOCK = 64 * 1024  # bytes
_NULLS = ("", "~", "null", "Null", "NULL")
_MAP, _LIST = yaml.MappingStartEvent, yaml.SequenceStartEvent
_START = (_MAP, _LIST)
_END = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
# libyaml's parser is ten times as fast; its package may come without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(stream: BinaryIO) -> Iterator[Row | Problem]:
    """A mapping with the sections, of which `identities` comes last."""
    events = _Events(stream)
    try:
        yield from _document(events)
    except StopError as exc:
        yield Problem(events.line, "", str(exc))
    except yaml.YAMLError as exc:  # its text may quote
        at = getattr(
            exc, "position", None
        )  # of a byte that is no text: no event is near, blocks are decoded whole
        yield Problem(events.line if at is None else _line_of(stream, at), "", "is no YAML from here on")


def _line_of(stream: BinaryIO, position: int) -> int:
    stream.seek(0)
    line = 1
    while raw := stream.readline(min(position, _BLOCK)):
        position -= len(raw)
        line += raw.endswith(b"\n")
    return line


class _Events:
    """YAML's events, one after the other, and the line at which they stand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = BoundedStream(stream, _BUDGET)
        readable: Any = self._stream  # typeshed wants a default of `size`, which no parser asks for
        self._parsed = yaml.parse(readable, Loader=_LOADER)
        self.line = 1

    def next(self) -> yaml.Event:
        """Raises YAMLError; StopError where no event comes for long: the parser would first collect all of a text."""
        error: Exception | None = None
        try:
            event: yaml.Event = next(self._parsed)
        except yaml.YAMLError as exc:
            error = exc
        except (ValueError, OverflowError):  # PyYAML's own parser, of an escape for what is no character
            error = yaml.YAMLError()
        if self._stream.is_exhausted:
            error = StopError(f"is followed by a text or comment of more than {MAX_SCALAR // 1024} KiB")
        if error is not None:
            raise error from None
        self._stream.renew()
        mark: Any = event.start_mark
        self.line = mark.line + 1
        return event

    def skip(self, event: yaml.Event) -> None:
        """All that belongs to a node whose first event this is. Raises StopError if it is too deep."""
        depth = int(isinstance(event, _START))
        while depth:
            event = self.next()
            depth += isinstance(event, _START) - isinstance(event, _END)
            if depth > MAX_DEPTH:
                raise StopError(f"has more than {MAX_DEPTH} lists or mappings in each other")


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
        elif _size(text) > MAX_SCALAR:
            sound = False
            yield Problem(at, shown(name), f"has more than {MAX_SCALAR // 1024} KiB")
        elif not text and name in NEVER_EMPTY:
            sound = False
            yield Problem(at, name, EMPTY)
        fields[name] = text or ""
    if sound:
        yield Row(section, line, {name: text for name, text in fields.items() if text})


def _text(event: yaml.Event) -> str | None:
    """What stands there; empty for YAML's null; None if it is no scalar, or one with a tag."""
    if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "tag:yaml.org,2002:str"):
        return None
    plain = event.style in (None, "") and event.tag is None
    return "" if plain and event.value in _NULLS else str(event.value)


def _size(text: str) -> int:
    """Bytes in UTF-8, in which an escape may stand for half a surrogate pair."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
