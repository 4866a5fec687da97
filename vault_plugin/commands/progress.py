"""A progress line on the terminal; messages are written above it."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD = 0.1  # minimum seconds between two updates
WIDTH = 36
_CLEARED = "\r\x1b[K"


class Progress:
    """Draws the line if standard error is a terminal. Thread-safe."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()
        self._lock = threading.RLock()

    def step(self) -> None:
        """Count one more identity as processed."""
        with self._lock:
            self._done += 1
            if self._done == self._total or time.monotonic() - self._drawn >= PERIOD:
                self._write(self._line())

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the line inside the block, for a message."""
        with self._lock:
            self._write(_CLEARED)
            yield
            self._write(self._line())

    def end(self) -> None:
        """Keep the last state as a line of the output, and draw no more."""
        with self._lock:
            if self._done:
                self._write(f"{self._line()}\n")
            self._shown = False

    def _line(self) -> str:
        self._drawn = time.monotonic()
        part = self._done / self._total if self._total else 1.0
        bar = "#" * int(part * WIDTH)
        return f"{_CLEARED}[{bar:-<{WIDTH}}] {self._done:,} of {self._total:,} ({part:.0%})"

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(text)
            sys.stderr.flush()
