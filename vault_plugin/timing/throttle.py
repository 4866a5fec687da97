"""How fast Vault may be asked: without any limit until it refuses a request (429), from then on at a rate that adapts.

Additive increase, multiplicative decrease, as in TCP and in the adaptive mode of AWS' clients: a refusal lowers the
rate, each accepted request raises it a little, up to the rate at which Vault refused the last time; beyond that it
rises quickly, for the quota may have been raised, or never been one. Requests are spaced evenly, so that each takes
about as long as the one before it, and the numbers of identities in progress and of tokens that are minted but not
yet stored follow the rate: what is minted is stored soon.
"""

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DECREASE = 0.7  # what is left of the rate after a refusal; AWS' clients use the same
INCREASE = (
    0.06  # requests/s per accepted request: about 5 s from DECREASE back to the old rate, whatever it is
)
RISE = 0.25  # the same beyond the old rate, as a part of the rate
ASSUMED = 4.0  # requests/s that a first refusal is taken for, at least: it may be a stray one
PAIRS = 2.0  # requests/s; at less, a window of Vault's has no room for two requests
UNLIMITED = 1000.0  # requests/s; at more than that no request has to wait
WINDOW = 1.0  # seconds over which accepted requests are counted; Vault's quotas do the same by default
BACKOFF = (
    0.2,
    5.0,
)  # seconds until Vault is asked again: at first, and at most; it doubles while Vault refuses
WRITES = 4  # for one identity that needs new tokens: two for each of two
REQUESTS = 2 + WRITES  # ... and two reads before
SPAN = 2.0  # seconds in which what is in progress can be done, at the current rate
FIRST = 4  # identities in progress at the start; one more for each accepted request, until Vault refuses one


class Throttle:
    """What one Vault accepts, as far as its responses have told. Safe among threads.

    Moments are monotonic seconds.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._monotonic = monotonic
        self._uniform = uniform
        self._rate = math.inf  # requests/s
        self._peak = 0.0  # the rate at which Vault refused the last time
        self._next = -math.inf  # when the next request may be sent
        self._closed_until = -math.inf  # no request is sent before
        self._refused_at = -math.inf
        self._refusals = 0  # since the last accepted request
        self._accepted: deque[float] = deque()
        self._count = 0  # of accepted requests
        self._in_progress: Counter[str] = Counter()
        self._changed = threading.Condition(threading.RLock())

    @property
    def rate(self) -> float:
        """Requests per second; infinite while Vault has not refused any."""
        return self._rate

    @property
    def refusing(self) -> bool:
        """Whether Vault refused the newest request."""
        return self._refusals > 0

    @property
    def gap(self) -> float:
        """Seconds between two requests that are sent one right after the other; 0 where both may be sent at once."""
        return 1 / self._rate if self._rate < PAIRS else 0.0

    def reserve(self, requests: int = 1) -> float:
        """When the caller may send its next requests; nobody else is given that moment, unless there is no limit."""
        with self._changed:
            turn = max(self._monotonic(), self._next, self._closed_until)
            self._next = turn + requests / self._rate
            return turn

    def stands(self, turn: float) -> bool:
        """Whether a moment that was reserved still holds: Vault has not refused another request meanwhile."""
        return turn >= self._closed_until

    def seconds_for(self, requests: int) -> float:
        """How long so many requests take from now on, waits included."""
        with self._changed:
            wait = max(self._next, self._closed_until) - self._monotonic()
            return max(0.0, wait) + requests / self._rate

    def accept(self, sent: float) -> None:
        """Learn that Vault accepted a request, sent at that moment."""
        with self._changed:
            now = self._monotonic()
            self._count += 1
            self._accepted.append(now)
            while self._accepted[0] < now - WINDOW:
                self._accepted.popleft()
            if self._rate == math.inf or sent < self._refused_at:
                return
            self._refusals = 0
            self._rate += INCREASE if self._rate < self._peak else RISE * self._rate
            if self._rate > UNLIMITED:
                self._rate = math.inf

    def refuse(self, retry_after: float, sent: float) -> None:
        """Learn that Vault refused a request, sent at that moment, for at least `retry_after` seconds.

        Vault rounds that down: 0 means anything up to a second.
        """
        with self._changed:
            now = self._monotonic()
            if sent >= self._refused_at:  # else it belongs to requests sent together, and is no further sign
                if not self._refusals:  # else nothing was accepted since, and the rate says nothing
                    self._lower(now)
                self._refusals += 1
                self._refused_at = now
            first, most = BACKOFF
            # The exponent is bounded, as a float is.
            backoff = min(most, first * 2 ** min(self._refusals - 1, 10))
            pause = retry_after + self._uniform(backoff / 2, backoff)
            self._closed_until = max(self._closed_until, now + pause)

    def _lower(self, now: float) -> None:
        accepted = sum(moment >= now - WINDOW for moment in self._accepted)
        rate = min(self._rate, max(ASSUMED, accepted))
        # After a few requests a first refusal says nothing about a limit.
        self._peak = 0.0 if self._rate == math.inf and accepted < ASSUMED else rate
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
        """How many may be in progress that send so many requests each."""
        if self._rate < math.inf:
            return max(1, self._rate * SPAN // requests)
        return FIRST + self._count
