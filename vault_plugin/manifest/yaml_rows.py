"""A manifest in YAML, read as a stream of events.

All values are read as strings (`026` stays `026`); anchors, tags and merges are not supported. Only one row, of bounded
size, is in memory.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import yaml

from vault_plugin.manifest.bounded import BoundedStream
from vault_plugin.manifest.row import EMPTY, TWICE, Field, Problem, Row, StopError, make_row, shown

MAX_SCALAR = 64 * 1024  # bytes of a value
MAX_DEPTH = 100  # levels of nested lists and mappings; a manifest needs four
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
    """Yield the rows of a mapping with the sections, of which `identities` comes last."""
    events = _Events(stream)
    try:
        yield from _document(events)
    except StopError as exc:
        yield Problem(events.line, "", str(exc))
    except yaml.YAMLError as exc:  # whose text may quote values
        # Set for a byte that is not UTF-8: whole blocks are decoded, so that the last event may be far from it.
        at = getattr(exc, "position", None)
        yield Problem(
            events.line if at is None else _line_of(stream, at), "", "is not valid YAML from here on"
        )


def _line_of(stream: BinaryIO, position: int) -> int:
    """Return the line in which the byte at that position is."""
    stream.seek(0)
    line = 1
    while raw := stream.readline(min(position, _BLOCK)):
        position -= len(raw)
        line += raw.endswith(b"\n")
    return line


class _Events:
    """The parser's events; `line` is that of the last one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = BoundedStream(stream, _BUDGET)
        readable: Any = self._stream  # typeshed demands a default of `size`, which no parser needs
        self._parsed = yaml.parse(readable, Loader=_LOADER)
        self.line = 1

    def next(self) -> yaml.Event:
        """Return the next event. Raises YAMLError; StopError for a long text, which the parser would keep in memory."""
        error: Exception | None = None
        try:
            event: yaml.Event = next(self._parsed)
        except yaml.YAMLError as exc:
            error = exc
        except (ValueError, OverflowError):  # of PyYAML's own parser, for an escape that is not a character
            error = yaml.YAMLError()
        if self._stream.is_exhausted:
            error = StopError(f"is followed by a string or comment of more than {MAX_SCALAR // 1024} KiB")
        if error is not None:
            raise error from None
        self._stream.renew()
        mark: Any = event.start_mark
        self.line = mark.line + 1
        return event

    def skip(self, event: yaml.Event) -> None:
        """Skip the rest of the node that begins with this event. Raises StopError if it is nested too deeply."""
        depth = int(isinstance(event, _START))
        while depth:
            event = self.next()
            depth += isinstance(event, _START) - isinstance(event, _END)
            if depth > MAX_DEPTH:
                raise StopError(f"is nested more than {MAX_DEPTH} levels deep")


def _document(events: _Events) -> Iterator[Row | Problem]:
    events.next()  # the stream's start
    if isinstance(events.next(), yaml.StreamEndEvent):
        yield Problem(1, "", "is empty: a manifest needs `identities`")
        return
    if not isinstance(events.next(), _MAP):
        yield Problem(events.line, "", "is not a mapping with `identities`")
        return
    seen: set[str] = set()
    while not isinstance(key := events.next(), yaml.MappingEndEvent):
        line, name = events.line, _text(key) or ""
        if name in seen:
            yield Problem(line, shown(name), TWICE)
        elif name in ("name", "defaults", "targets") and "identities" in seen:
            yield Problem(line, name, "must come before `identities`, which is read as a stream")
        seen.add(name)
        events.skip(key)
        yield from _section(name, line, events)
    if "identities" not in seen:
        yield Problem(events.line, "identities", "is missing")
    events.next()  # the document's end
    if not isinstance(events.next(), yaml.StreamEndEvent):
        yield Problem(events.line, "", "begins another document: a manifest is a single document")


def _section(name: str, line: int, events: _Events) -> Iterator[Row | Problem]:
    value = events.next()
    if name == "name" and isinstance(value, yaml.ScalarEvent):
        text = _text(value)
        fault = "is not a plain string without a tag" if text is None else "" if text else EMPTY
        yield from make_row(name, events.line, [Field(line, name, text or "", fault)])
    elif name == "defaults" and isinstance(value, _MAP):
        yield from make_row(name, events.line, _fields(events))
    elif name in ("targets", "identities") and isinstance(value, _LIST):
        while not isinstance(item := events.next(), yaml.SequenceEndEvent):
            if isinstance(item, _MAP):
                yield from make_row(name, events.line, _fields(events))
            else:
                yield Problem(events.line, name, "has an item that is not a mapping")
                events.skip(item)
    else:
        events.skip(value)
        kinds = {
            "name": "must be a string",
            "defaults": "must be a mapping",
            "targets": "must be a list",
            "identities": "must be a list",
        }
        yield Problem(line, shown(name), kinds.get(name, "is not a section of a manifest"))


def _fields(events: _Events) -> Iterator[Field]:
    while not isinstance(key := events.next(), yaml.MappingEndEvent):
        line, name = events.line, _text(key) or ""
        events.skip(key)
        value = events.next()
        text = _text(value)
        events.skip(value)
        fault = ""
        if text is None:
            fault = "is not a plain string or number without a tag or an alias"
        elif _size(text) > MAX_SCALAR:
            fault = f"has more than {MAX_SCALAR // 1024} KiB"
        yield Field(line, name, text or "", fault)


def _text(event: yaml.Event) -> str | None:
    """Return the value; empty for YAML's null; None if it is not a scalar, or has a tag."""
    if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "tag:yaml.org,2002:str"):
        return None
    plain = event.style in (None, "") and event.tag is None
    return "" if plain and event.value in _NULLS else str(event.value)


def _size(text: str) -> int:
    """Return the number of bytes in UTF-8, also of half a surrogate pair, for which YAML has an escape."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
