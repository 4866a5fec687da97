"""The servers' time: RFC 3339 and HTTP dates, and a clock measured from their responses.

A token expires by KlearStack's clock and is deleted by Vault's; the local clock has no part in it. A `Date` header D
(whole seconds) in the response to a request sent at t0 says that the server's clock read less than D + 1 at some time
after t0. Hence, at any later t, it reads less than D + 1 + (t - t0). Lifetimes are computed from that upper bound: if it is
too late, a token only looks a little older than it is.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil

MAX_SKEW = 5.0  # seconds; `Date` headers alone leave up to 2 s open
MAX_DATE = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can write
_log = logging.getLogger(__name__)


def format_rfc3339(instant: int) -> str:
    """Unix seconds as RFC 3339 in UTC, such as `2026-11-22T22:05:06Z`."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: object) -> float | None:
    """Unix seconds of an RFC 3339 date, rounded up to a microsecond; None for anything else.

    Vault writes nanoseconds and Python keeps microseconds. Rounding down could make a date earlier than it is.
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else ceil(moment.timestamp() * 1e6 + 0.5) / 1e6


class ServerClock:
    """One server's clock, measured by its responses; the local clock until the first of them. Safe among threads."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead: float | None = None  # upper bound of (server's time - local monotonic time), seconds
        self._lock = threading.Lock()

    @property
    def measured(self) -> bool:
        """Whether any response has shown the server's time."""
        return self._ahead is not None

    def now(self) -> float:
        """Unix seconds that the server's clock does not exceed."""
        return self._wall() if self._ahead is None else self._ahead + self._monotonic()

    def observe_date(self, header: str | None, sent: float) -> None:
        """Learn from the `Date` header in the response to a request sent at `sent` (monotonic seconds)."""
        try:
            date = parsedate_to_datetime(header or "")
        except (ValueError, OverflowError):
            return
        if date.tzinfo is not None:
            self._learn(date.timestamp(), 1.0, sent)

    def observe_instant(self, instant: float | None, sent: float) -> None:
        """Learn from an exact instant (Unix seconds) that the server put into such a response."""
        if instant is not None:
            self._learn(instant, 0.0, sent)

    def _learn(self, instant: float, resolution: float, sent: float) -> None:
        bound = instant + resolution - sent
        with self._lock:
            old = self._ahead
            # The smaller bound is the more exact one, unless the server's clock has been seen beyond it: then one
            # of the two clocks was set, or this host slept, and the old bound no longer holds.
            if old is None or bound < old or instant > old + self._monotonic():
                self._ahead = bound


def latest(*clocks: ServerClock) -> float:
    """Unix seconds by the measured clock that is furthest ahead; by the local one if none has been measured."""
    return max((clock.now() for clock in clocks if clock.measured), default=clocks[0].now())


def warn_of_skew(vault_clock: ServerClock, endpoint_clock: ServerClock) -> None:
    """Warn if the two servers' clocks, as far as they have been measured, are more than MAX_SKEW apart."""
    if not (vault_clock.measured and endpoint_clock.measured):
        return
    skew = vault_clock.now() - endpoint_clock.now()
    if abs(skew) > MAX_SKEW:
        how, then = (
            ("ahead of", "tokens are deleted too early by that much")
            if skew > 0
            else ("behind", "the lifetime of a token counts from when it is stored")
        )
        _log.warning("Vault's clock is %.0f s %s the endpoint's: %s", abs(skew), how, then)
