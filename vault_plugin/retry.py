"""How long to go on, and how long to wait between two tries."""

import random
import threading
import time
from collections.abc import Callable, Iterator


class Deadline:
    """A point in time that everything belonging to one call shares."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())

    def half(self) -> "Deadline":
        """A deadline over half of what is left: whoever fails within it leaves time for a fallback."""
        return Deadline(self.left() / 2, self._monotonic)


def full_jitter(base: float, cap: float) -> Iterator[float]:
    """Seconds to wait before each further try: anything up to a bound that doubles from `base` to `cap`.

    "Full jitter" spreads callers that failed together, so that they don't return together.
    """
    bound = base
    while True:
        yield random.uniform(0, bound)  # noqa: S311  no secret hangs on it
        bound = min(cap, bound * 2)


def retry_after(header: str | None) -> float:
    """Seconds of a `Retry-After` header; 0 where there is none, or a date (which no server of ours sends)."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else 0.0


class Pace:
    """At most so many a second, evenly spaced, over all threads."""

    def __init__(
        self,
        per_second: float,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1 / per_second
        self._sleep = sleep
        self._monotonic = monotonic
        self._next = monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is the caller's turn."""
        with self._lock:
            now = self._monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        self._sleep(turn - now)
