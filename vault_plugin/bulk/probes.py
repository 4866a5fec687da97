"""When the next identity is tried in an outage (a probe).

An endpoint that refuses more requests (429) without a `Retry-After` gets at most one request per worker in any minute
of an outage. Requests in progress when the outage began count, and the delays between probes double from a first one
that leaves room for them.
"""

from collections import deque
from collections.abc import Callable

from vault_plugin.bulk.scope import Scope
from vault_plugin.errors import KlearstackVaultError, SourceBusyError

PROBE_DELAY = 1.0, 5.0  # seconds between two probes: at first, and at most; it doubles
LIMIT_DELAY = 1.0, 120.0  # the same where the endpoint's 429 has no `Retry-After`
MINUTE = 60.0  # seconds in which such an endpoint refuses at most one request per worker
LIMIT_SHARE = 0.97  # of the duration of the last rate limit, which may have been measured too long
UNPROBED_SHARE = 0.5  # the same while no probe was ever refused: it may have been much too long


class Probes:
    """The schedule of the probes. Times are monotonic seconds. The caller holds a lock during each call."""

    def __init__(
        self, workers: int, monotonic: Callable[[], float], uniform: Callable[[float, float], float]
    ) -> None:
        self.scope = Scope.IDENTITY  # of the outage
        self._workers = workers
        self._monotonic = monotonic
        self._uniform = uniform
        self._began_at = self._due_at = 0.0
        self._asked_for = 0.0  # seconds of the outage that the endpoint's `Retry-After` asked for
        self._delay = self._next_delay = 0.0
        # So many delays, each twice as long as the one before, fill a minute.
        self._first_limit_delay = max(LIMIT_DELAY[0], MINUTE / (2 ** min(workers, 10) - 1))
        self._last_limit = (
            0.0  # seconds after which the endpoint may accept requests again, by the last rate limit
        )
        self._was_refused = False  # whether a rate limit has ever refused a probe
        self._refused: deque[float] = deque(maxlen=workers)  # when, in this outage and without `Retry-After`

    @property
    def due_in(self) -> float:
        """Seconds until the next probe."""
        return max(0.0, self._due_at - self._monotonic())

    @property
    def lasting(self) -> float:
        """Seconds that the outage has lasted, without those that the endpoint asked for."""
        return self._monotonic() - self._began_at - self._asked_for

    def is_due(self, minting: int) -> bool:
        """Whether to begin a probe, while so many other mints are in progress, which may be refused as well."""
        now = self._monotonic()
        refused = sum(moment + MINUTE > now for moment in self._refused)
        return now >= self._due_at and (not refused or refused + minting < self._workers)

    def begin(self, exc: KlearstackVaultError, scope: Scope) -> None:
        """Begin an outage."""
        self._began_at = self._monotonic()
        self._asked_for = 0.0
        self._restart(scope)
        self._defer(exc)

    def fail(self, exc: KlearstackVaultError, scope: Scope) -> None:
        """Record a probe that failed."""
        if scope is not self.scope:
            self._restart(scope)
        else:
            longest = (LIMIT_DELAY if scope is Scope.RATE_LIMIT else PROBE_DELAY)[1]
            self._delay, self._next_delay = min(longest, self._next_delay), 2 * self._next_delay
        self._was_refused |= scope is Scope.RATE_LIMIT
        self._defer(exc)

    def fail_late(self, exc: KlearstackVaultError, scope: Scope) -> None:
        """Record a failure of a mint that began before the outage: it can only make the wait longer."""
        if asked_for := _retry_after(exc):
            self._due_at = max(self._due_at, self._monotonic() + asked_for)
        elif scope is Scope.RATE_LIMIT:
            self._note_refusal()

    def end(self) -> None:
        """End the outage."""
        if self.scope is Scope.RATE_LIMIT:
            share = LIMIT_SHARE if self._was_refused else UNPROBED_SHARE
            self._last_limit = share * (self._monotonic() - self._began_at)
        self._refused.clear()

    def _restart(self, scope: Scope) -> None:
        self.scope = scope
        first = self._first_limit_delay if scope is Scope.RATE_LIMIT else PROBE_DELAY[0]
        self._delay, self._next_delay = first, 2 * first
        if scope is Scope.RATE_LIMIT and self._last_limit > first:
            self._delay = min(LIMIT_DELAY[1], self._last_limit)
            self._next_delay = max(LIMIT_DELAY[0], self._last_limit / 8)

    def _defer(self, exc: KlearstackVaultError) -> None:
        is_limit = self.scope is Scope.RATE_LIMIT
        asked_for = _retry_after(exc)
        if asked_for:
            wait = asked_for + self._uniform(0.1, 0.5)
        else:
            wait = self._delay if is_limit else self._delay * self._uniform(0.8, 1.0)
        self._asked_for += asked_for
        self._due_at = self._monotonic() + wait
        if is_limit and not asked_for:
            self._note_refusal()

    def _note_refusal(self) -> None:
        """Defer the next probe until it is no worker's second request in a minute."""
        self._refused.append(self._monotonic())
        if len(self._refused) == self._workers:
            self._due_at = max(self._due_at, self._refused[0] + MINUTE)


def _retry_after(exc: KlearstackVaultError) -> float:
    """Return the seconds that the endpoint asks to wait; 0 if it does not say."""
    return exc.retry_after if isinstance(exc, SourceBusyError) else 0.0
