"""A stream that ends early rather than hand out much at once: for a parser that would collect it all in memory."""

from typing import BinaryIO


class BoundedStream:
    """Bytes to read, at most `budget` of them until `renew` is called; then it ends, and `is_exhausted`."""

    def __init__(self, stream: BinaryIO, budget: int) -> None:
        self._stream = stream
        self._budget = self._left = budget
        self.is_exhausted = False

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        part = self._stream.read(min(size, self._left) or 1)
        if not self._left and part:
            self.is_exhausted = True
            return b""
        self._left -= len(part)
        return part

    def renew(self) -> None:
        """Allow for the whole budget again."""
        self._left = self._budget
