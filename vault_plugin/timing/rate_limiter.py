"""The rate limiter with a fixed rate."""

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """At most so many calls per second, evenly spaced, over all threads."""

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

    def acquire(self) -> None:
        """Sleep until the caller may proceed."""
        with self._lock:
            now = self._monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        self._sleep(start - now)
