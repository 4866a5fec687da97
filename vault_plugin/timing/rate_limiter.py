"""Rate limiters: one with a fixed rate for mints, and an adaptive one for Vault.

The adaptive one has no limit until Vault rejects a request (429), and from then on a rate that adapts.

Additive increase, multiplicative decrease, as in TCP and in the adaptive retry mode of the AWS SDKs: a rejection lowers
the rate, and each accepted request raises it a little, up to the rate at which Vault rejected the last time. Beyond that
it rises quickly, since the quota may have been raised, or may not have been the cause. Requests are spaced evenly, so that
each takes about as long as the one before it. The numbers of identities in progress and of tokens that are minted but not
yet stored follow the rate, so that a minted token is stored soon.
"""

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Rates are in requests per second.
DECREASE = 0.7  # factor of the rate after a rejection, as in the AWS SDKs
INCREASE = 0.06  # per accepted request: about 5 s from DECREASE back to the old rate, whatever it is
RISE = 0.25  # per accepted request beyond the old rate, as a share of the rate
ASSUMED = 4.0  # the lowest rate that a first rejection is taken for: it may be a stray one
PAIRS = 2.0  # below it, a window of Vault's has no room for two requests
UNLIMITED = 1000.0  # above it, no request has to wait
WINDOW = 1.0  # seconds over which accepted requests are counted, as Vault's quotas do by default
# Seconds until the next request after a rejection: at first, and at most. It doubles with each rejection.
BACKOFF = (0.2, 5.0)
WRITES = 4  # requests to write the new tokens of an identity: two for each of two tokens
REQUESTS = 2 + WRITES  # with the two reads before
SPAN = 2.0  # seconds in which all that is in progress can be finished, at the current rate
FIRST = 4  # identities in progress at the start; one more for each accepted request, until Vault rejects one


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


class AdaptiveRateLimiter:
    """The rate of requests that one Vault accepts, learned from its responses. Safe among threads.

    Moments are monotonic seconds.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._monotonic = monotonic
        self._uniform = uniform
        self._limit = math.inf  # requests/s, which the rate never exceeds
        self._burst = 1  # requests that may be sent at once after a pause
        self._rate = math.inf  # requests/s
        self._peak = 0.0  # the rate at which Vault rejected the last time
        self._next = -math.inf  # when the next request may be sent
        self._closed_until = -math.inf  # no request is sent before
        self._refused_at = -math.inf
        self._refusals = 0  # since the last accepted request
        self._accepted: deque[float] = deque()
        self._count = 0  # of accepted requests
        self._in_progress: Counter[str] = Counter()
        self._changed = threading.Condition(threading.RLock())

    def limit(self, rate: float, burst: int) -> None:
        """Never exceed that rate (requests per second), except by a burst of so many requests after a pause."""
        with self._changed:
            self._limit, self._burst = rate, burst
            self._rate = min(self._rate, rate)

    @property
    def is_limited(self) -> bool:
        """Whether `limit` was called."""
        return self._limit < math.inf

    @property
    def rate(self) -> float:
        """Requests per second; infinite until Vault has rejected one."""
        return self._rate

    @property
    def refusing(self) -> bool:
        """Whether Vault rejected the latest request."""
        return self._refusals > 0

    @property
    def gap(self) -> float:
        """Seconds between two requests that belong together; 0 if both may be sent at once."""
        return 1 / self._rate if self._rate < PAIRS else 0.0

    def reserve(self, requests: int = 1) -> float:
        """Reserve the moment at which the caller may send its next requests, for this caller alone if there is a limit."""
        with self._changed:
            start = max(self._monotonic(), self._next - self._advance(), self._closed_until)
            self._next = max(self._next, start) + requests / self._rate
            return start

    def stands(self, start: float) -> bool:
        """Whether a reserved moment is still valid: Vault has not rejected another request since."""
        return start >= self._closed_until

    def seconds_for(self, requests: int) -> float:
        """Seconds until that many requests have been sent, with the wait before them."""
        with self._changed:
            now, took = self._monotonic(), requests / self._rate
            sent = max(self._next, now) - self._advance() + took
            return max(0.0, sent - now, self._closed_until - now + took)

    def _advance(self) -> float:
        """Seconds by which a burst may come before its time: none while Vault accepts less than the limit."""
        return (self._burst - 1) / self._rate if self._rate >= self._limit else 0.0

    def accept(self, sent: float) -> None:
        """Learn that Vault accepted a request that was sent at that moment."""
        with self._changed:
            now = self._monotonic()
            self._count += 1
            self._accepted.append(now)
            while self._accepted[0] < now - WINDOW:
                self._accepted.popleft()
            if self._rate >= self._limit or sent < self._refused_at:
                return
            self._refusals = 0
            self._rate += INCREASE if self._rate < self._peak else RISE * self._rate
            if self._rate > UNLIMITED:
                self._rate = math.inf
            self._rate = min(self._rate, self._limit)

    def refuse(self, retry_after: float, sent: float) -> None:
        """Learn that Vault rejected a request that was sent at that moment, for at least `retry_after` seconds.

        Vault rounds that down: 0 means anything up to a second.
        """
        with self._changed:
            now = self._monotonic()
            # An earlier request was sent together with the rejected one: its rejection says nothing new.
            if sent >= self._refused_at:
                # Without an accepted request since the last rejection, the rate says nothing.
                if not self._refusals:
                    self._lower(now)
                self._refusals += 1
                self._refused_at = now
            first, most = BACKOFF
            # The exponent is bounded, since a float is.
            backoff = min(most, first * 2 ** min(self._refusals - 1, 10))
            pause = retry_after + self._uniform(backoff / 2, backoff)
            self._closed_until = max(self._closed_until, now + pause)

    def _lower(self, now: float) -> None:
        accepted = sum(moment >= now - WINDOW for moment in self._accepted)
        rate = min(self._rate, max(ASSUMED, accepted))
        # After only a few requests, a first rejection does not show the limit.
        self._peak = 0.0 if self._rate >= self._limit and accepted < ASSUMED else rate
        self._rate = DECREASE * rate

    @contextmanager
    def identity(self, stopping: threading.Event) -> Iterator[bool]:
        """Wait until one more identity may be in progress, and count it; False if `stopping` is set before."""
        with self._counted("identity", REQUESTS, stopping.is_set) as admitted:
            yield admitted

    @contextmanager
    def mint(self, left: Callable[[], float]) -> Iterator[bool]:
        """Wait until one more token may be minted, and count it as one until it is stored.

        False if that would not be possible within the seconds that are `left`.
        """
        with self._counted("mint", WRITES, lambda: self.seconds_for(WRITES) >= left()) as admitted:
            yield admitted

    @contextmanager
    def _counted(self, what: str, requests: int, give_up: Callable[[], bool]) -> Iterator[bool]:
        with self._changed:
            while not (given_up := give_up()) and self._in_progress[what] >= self._room(requests):
                self._changed.wait(0.05)
            self._in_progress[what] += 1
        try:
            yield not given_up
        finally:
            with self._changed:
                self._in_progress[what] -= 1
                self._changed.notify()

    def _room(self, requests: int) -> float:
        """How many may be in progress, if each sends that many requests."""
        if self._rate < math.inf:
            return max(1, self._rate * SPAN // requests)
        return FIRST + self._count
