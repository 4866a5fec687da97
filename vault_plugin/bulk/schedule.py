"""Which identity is due next."""

import heapq
import itertools
import threading
import time
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

MAX_WAIT = 3600.0  # seconds; Python cannot wait for more than threading.TIMEOUT_MAX, some centuries
T = TypeVar("T", bound=Hashable)


class Schedule(Generic[T]):
    """Items that workers take when they are due, and put back. Safe among threads. All are due at the start."""

    def __init__(self, items: Iterable[T]) -> None:
        self._number = itertools.count()
        # Each with the monotonic seconds at which it is due; the number keeps the order of equal ones.
        self._due = [(0.0, next(self._number), item) for item in items]
        self._untried = {item for _, _, item in self._due}
        self._changed = threading.Condition()
        self._closed = False
        self.tried = threading.Event()  # set once each item has been put back
        if not self._due:
            self.tried.set()

    def take(self) -> T | None:
        """Wait for the next item that is due; None after `close`."""
        with self._changed:
            while not self._closed:
                wait = self._due[0][0] - time.monotonic() if self._due else MAX_WAIT
                if wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(min(wait, MAX_WAIT))
            return None

    def put(self, item: T, delay: float) -> None:
        """Put an item back, due in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._number), item))
            self._changed.notify()
            self._untried.discard(item)
            if not self._untried:
                self.tried.set()

    def close(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
