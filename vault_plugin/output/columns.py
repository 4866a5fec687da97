"""Columns of a terminal: how many a text takes, and texts cut or filled up to so many."""

import unicodedata
from collections.abc import Iterator

ELLIPSIS = "…"
_WIDE = "\ufe0f"  # shows the character before it as an emoji


def width(text: str) -> int:
    """The number of columns that the text takes. Chinese, Japanese and Korean characters and emoji take two."""
    return len(text) if text.isascii() else sum(columns for _, columns in _clusters(text))


def cut(text: str, columns: int) -> str:
    """The text in so many columns at most; one that is longer ends in an ellipsis."""
    if width(text) <= columns:
        return text
    kept, left, clusters = "", columns - 1, _clusters(text)
    cluster, needed = next(clusters)
    while needed <= left:
        kept, left = kept + cluster, left - needed
        cluster, needed = next(clusters)
    return kept + ELLIPSIS


def filled(text: str, columns: int) -> str:
    """The text, cut or filled up with spaces to exactly so many columns."""
    shown = cut(text, columns)
    return shown + " " * (columns - width(shown))


def _clusters(text: str) -> Iterator[tuple[str, int]]:
    """Yield each character with what is drawn on top of it, and the columns of both."""
    cluster, columns = "", 0
    for char in text:
        own = _columns(char)
        if cluster and own == 0:
            cluster += char
            columns = 2 if char == _WIDE else columns
            continue
        if cluster:
            yield cluster, columns
        cluster, columns = char, own
    yield cluster, columns


def _columns(char: str) -> int:
    # Jamo that complete a syllable are drawn in the columns of its first one.
    if unicodedata.category(char) in {"Mn", "Me", "Cf"} or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
