"""What `sync` and `watch` do for one identity: look for a valid token, wait for the rate limiter, mint."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vault_plugin.bulk.circuit_breaker import CircuitBreaker, Permit
from vault_plugin.bulk.targets import EnsureResult, Targets
from vault_plugin.errors import StoreError
from vault_plugin.timing.rate_limiter import RateLimiter
from vault_plugin.tokens.identity import Identity

EXCESS = 5.0  # seconds beyond its deadline after which a worker counts as hanging


class Step:
    """Ensures an identity's token as far as circuit breaker and rate limiter permit. Safe among threads.

    `rate` bounds the mints begun per second; `stopping` ends the wait for one. `renew` mints although a token is valid.
    """

    def __init__(
        self,
        targets: Targets,
        breaker: CircuitBreaker,
        rate: float | None,
        stopping: threading.Event,
        *,
        renew: bool = False,
    ) -> None:
        self._targets = targets
        self._renew = renew
        self._breaker = breaker
        self._rate_limiter = None if rate is None else RateLimiter(rate, sleep=stopping.wait)
        self._stopping = stopping
        self._end_by: dict[threading.Thread, float] = {}  # of each busy worker, in monotonic seconds

    def run(self, identity: Identity, permit: Permit, *, min_ttl: float | None = None) -> EnsureResult | None:
        """Return the token; None if it needs a mint that is not permitted, or `stopping` was set before the mint.

        Raises what Targets.ensure raises.
        """
        if self._renew and permit is Permit.READ:
            return None
        if not self._renew and (permit is Permit.READ or self._rate_limiter is not None):
            try:
                with self.timed():
                    found = self._targets.check(identity, min_ttl=min_ttl, repair=True)
            except StoreError:
                # One of several Vaults does not keep the others from getting the token, see Targets.ensure.
                if permit is Permit.READ or not self._targets.are_several:
                    raise
                found = None
            if found or permit is Permit.READ:
                return found
        if self._rate_limiter is not None:
            # Before the identity is locked, so that no other process waits for this wait.
            self._rate_limiter.acquire()
            if self._stopping.is_set():
                return None
        with self.timed():
            cautious = permit is Permit.PROBE or self._breaker.cautious
            return self._targets.ensure(identity, min_ttl=min_ttl, cautious=cautious, renew=self._renew)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Expect the block to end by the deadline of one call; waits for permits and rate do not belong into it."""
        worker = threading.current_thread()
        self._end_by[worker] = time.monotonic() + self._targets.deadline
        try:
            yield
        finally:
            del self._end_by[worker]

    @property
    def hangs(self) -> bool:
        """Whether a worker exceeds its deadline, which no behaviour of a server should cause."""
        return any(time.monotonic() > end + EXCESS for end in list(self._end_by.values()))
