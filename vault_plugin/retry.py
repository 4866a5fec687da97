"""How long to go on, and how long to wait between two tries."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf


class Deadline:
    """A point in time that everything belonging to one call shares; `began` is when the call did (monotonic seconds)."""

    def __init__(
        self,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        began: float | None = None,
        last_try: float = inf,
    ) -> None:
        """`began` and `last_try`, after which nothing is repeated, are in monotonic seconds."""
        now = monotonic()
        self.began = now if began is None else began
        self._monotonic = monotonic
        self._end = now + seconds
        self._last_try = last_try

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())

    def half(self) -> "Deadline":
        """A deadline over half of what is left: whoever fails within it leaves time for a fallback."""
        return self.part(0.5)

    def part(self, share: float) -> "Deadline":
        """A deadline over that share of what is left."""
        return Deadline(self.left() * share, self._monotonic, began=self.began, last_try=self._last_try)

    def patient(self, seconds: float) -> "Deadline":
        """The same end, but what failed is not repeated later than that many seconds from now; with 0, not at all."""
        last_try = min(self._last_try, self._monotonic() + seconds)
        return Deadline(self.left(), self._monotonic, began=self.began, last_try=last_try)

    def permits(self, pause: float) -> bool:
        """Whether what failed may be repeated after a pause of that many seconds."""
        then = self._monotonic() + pause
        return then < self._end and then < self._last_try


def full_jitter(base: float, cap: float) -> Iterator[float]:
    """Seconds to wait before each further try: anything up to a bound that doubles from `base` to `cap`.

    "Full jitter" spreads callers that failed together, so that they don't return together.
    """
    bound = base
    while True:
        yield random.uniform(0, bound)  # noqa: S311  no secret hangs on it
        bound = min(cap, bound * 2)


def retry_after(header: str | None, date: str | None = None) -> float:
    """Seconds to wait by a `Retry-After` header, which is a number or an HTTP date; 0 where it is neither.

    A date counts from the `Date` header of the same response, if there is one: by the server's clock, not by ours.
    """
    if header is None:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header)
    then, now = _instant(header), _instant(date or "")
    return 0.0 if then is None else max(0.0, then - (time.time() if now is None else now))


def _instant(header: str) -> float | None:
    """Unix seconds of an HTTP date."""
    try:
        moment = parsedate_to_datetime(header)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
