"""A stream with a budget, for a parser that would otherwise keep a text of any size in memory."""

from typing import BinaryIO


class BoundedStream:
    """Reads at most `budget` bytes until `renew` is called; after those it ends and sets `is_exhausted`."""

    def __init__(self, stream: BinaryIO, budget: int) -> None:
        self._stream = stream
        self._budget = self._left = budget
        self.is_exhausted = False

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        part = self._stream.read(min(size, self._left) or 1)
        if not self._left and part:
            self.is_exhausted = True
            return b""
        self._left -= len(part)
        return part

    def renew(self) -> None:
        """Allow the whole budget again."""
        self._left = self._budget
