"""The lifetime of a version in Vault, such that it is deleted just before its JWT expires, however slow Vault is.

Vault adds the lifetime to the moment at which it writes the data. It is set before that, so the time in between has to be
predicted by how long the other requests of the same call took. The result is checked afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from math import floor
from statistics import median_high

# Seconds by which a token may be deleted before its JWT expires, where Vault responds within QUICK seconds. A slower
# response may make it earlier by as long as it took.
EARLIEST = 3.0
QUICK = 1.0
SLACK = 0.25  # seconds beyond the predicted time; a response took up to 105 ms longer than the ones before it
CLOCK = 1.0  # seconds by which our estimate of Vault's clock may be ahead: its `Date` has whole seconds
MAX_LIFE = 2_562_047 * 3600  # seconds; the longest lifetime that Vault accepts


class Landing(Enum):
    """When a version is deleted, compared with when its JWT expires."""

    ON_TIME = "on time"
    EARLY = "too early"
    LATE = "late"
    NEVER = "never"  # The mount switches expiry off.


class ResponseTimes:
    """How long Vault took for each request of one call, in seconds, with retries and waits."""

    def __init__(self, *seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.delayed = False  # Whether the data was last delayed until its lifetime no longer fitted.
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
        """The predicted time of the next request: the median, so that one delayed request does not decide."""
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
    """The lifetime to set, in whole seconds, for a token that expires in `left` seconds; less than 1 if there is none.

    Two requests take their time before the lifetime begins: the one that sets it, and the one with the data. The latter
    may be delayed again for as long as before, as under a rate limit.
    """
    delay = times.longest if times.delayed else 0.0
    return min(MAX_LIFE, floor(left - SLACK - max(2 * times.typical, delay)))


def fits(life: int, left: float, times: ResponseTimes) -> bool:
    """Whether data that is sent now, with this lifetime set, will be deleted in time and not much too early."""
    earliest = left - (EARLIEST - CLOCK) - times.longest
    return life <= left - max(SLACK / 2, times.typical) and (earliest <= life or life == MAX_LIFE)


def landing(deletion: float | None, life: int | None, end: float, times: ResponseTimes) -> Landing:
    """The result: Vault deletes at `deletion`, after `life` seconds; the token expires at `end` (Unix seconds)."""
    if deletion is None:
        return Landing.NEVER
    if deletion > end:
        return Landing.LATE
    tolerance = EARLIEST + (times.longest if times.longest > QUICK else 0.0)
    return Landing.ON_TIME if deletion >= end - tolerance or life == MAX_LIFE else Landing.EARLY
