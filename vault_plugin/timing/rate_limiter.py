"""A fixed rate, for those who ask for one."""

import threading
import time
from collections.abc import Callable


class RateLimiter:
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

    def acquire(self) -> None:
        """Sleep until it is the caller's turn."""
        with self._lock:
            now = self._monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        self._sleep(turn - now)
