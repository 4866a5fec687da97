"""How long a version is to live in Vault, so that it is deleted just before its JWT expires, however slow Vault is.

Vault adds the life to the moment at which it writes the data. The life is set before, so the time in between has to be
predicted: by how long the other requests of the same call took. The result is checked afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from math import floor
from statistics import median_high

EARLIEST = 3.0  # seconds that a token may be gone from Vault before its JWT expires, while Vault answers within QUICK
QUICK = 1.0  # seconds; a slower answer may make it earlier by as long as it took
SLACK = 0.25  # seconds beyond the predicted time; a response took up to 105 ms longer than the ones before it
CLOCK = 1.0  # seconds that our idea of Vault's clock may be ahead of it: its `Date` has whole seconds
MAX_LIFE = 2_562_047 * 3600  # seconds; the longest that Vault takes


class Landing(Enum):
    """Where a version's end lies, seen from its JWT's."""

    ON_TIME = "on time"
    EARLY = "too early"
    LATE = "late"
    NEVER = "never"  # the mount switches expiry off


class ResponseTimes:
    """How long Vault took for each request of one call, in seconds, repetitions and waits included."""

    def __init__(self, *seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.delayed = False  # whether the data was last held back until its life no longer fitted
        self._seconds = list(seconds)
        self._monotonic = monotonic

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time that the block takes, however it ends."""
        started = self._monotonic()
        try:
            yield
        finally:
            self._seconds.append(self._monotonic() - started)

    @property
    def typical(self) -> float:
        """What the next request will take: the median, so that one that was held back does not count for all."""
        return median_high(self._seconds)

    @property
    def quickest(self) -> float:
        """The least that a request takes."""
        return min(self._seconds)

    @property
    def longest(self) -> float:
        """The most that a request took."""
        return max(self._seconds)


def plan(left: float, times: ResponseTimes) -> int:
    """The life to set, in whole seconds, for a token with `left` seconds to live; less than 1 if there is none.

    Two requests come before Vault's clock counts: the one that sets the life, and the one with the data. The latter may
    be held back again for as long as it was before, as under a rate limit.
    """
    held_back = times.longest if times.delayed else 0.0
    return min(MAX_LIFE, floor(left - SLACK - max(2 * times.typical, held_back)))


def fits(life: int, left: float, times: ResponseTimes) -> bool:
    """Whether data that is sent now, with this life set, will be deleted in time, and not much too early."""
    earliest = left - (EARLIEST - CLOCK) - times.longest
    return life <= left - max(SLACK / 2, times.typical) and (earliest <= life or life == MAX_LIFE)


def landing(deletion: float | None, life: int | None, end: float, times: ResponseTimes) -> Landing:
    """What came of it: Vault deletes at `deletion`, after `life` seconds; the token expires at `end` (Unix seconds)."""
    if deletion is None:
        return Landing.NEVER
    if deletion > end:
        return Landing.LATE
    tolerance = EARLIEST + (times.longest if times.longest > QUICK else 0.0)
    return Landing.ON_TIME if deletion >= end - tolerance or life == MAX_LIFE else Landing.EARLY
