"""When bulk commands mint: not while the endpoint or Vault fails for all identities.

The first failures of an outage open the circuit: no identity mints. From then on one identity at a time is tried (a
probe), until one succeeds. After that the number of parallel mints grows with each success, so that not all workers
run into a rate limit at once.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from vault_plugin.errors import (
    KlearstackVaultError,
    MountMissingError,
    SourceBusyError,
    SourceError,
    StoreError,
)

IN_A_ROW = 3  # consecutive failures of the endpoint that open the circuit; one may be the identity's own
PROBE_DELAY = 1.0, 5.0  # seconds between two probes: at first, and at most; it doubles
LIMIT_DELAY = 1.0, 120.0  # the same where the endpoint's 429 has no `Retry-After`
LIMIT_SHARE = 0.97  # of the duration of the last rate limit, which may have been measured too long
CAUTIOUS_MINTS = 50  # mints after a failure of Vault that begin only after a successful write to their path
MAX_OPEN = 300.0  # seconds after which an outage without another bound is given up
MAX_PARALLEL = 2**10  # mints, from which on their number is not limited any more


class Scope(Enum):
    """What an error says about the other identities."""

    IDENTITY = auto()  # nothing
    ENDPOINT = auto()  # the endpoint is down
    RATE_LIMIT = auto()  # the endpoint refuses more requests for now
    VAULT = auto()  # no Vault can store the token of any identity


class Permit(Enum):
    """What a worker may do now."""

    MINT = auto()
    PROBE = auto()
    READ = auto()  # find out whether the identity needs no mint
    NONE = auto()


def scope_of(exc: KlearstackVaultError) -> Scope:
    """Return whom an error concerns. A policy's 403 concerns one path; throttle.py handles Vault's quotas."""
    match exc:
        case SourceBusyError():
            return Scope.RATE_LIMIT
        case SourceError(exit_code=SourceError.exit_code, retryable=True):
            return Scope.ENDPOINT
        case StoreError(for_all=None):
            down = isinstance(exc, MountMissingError) or exc.exit_code == StoreError.exit_code
            return Scope.VAULT if down else Scope.IDENTITY
        case StoreError(for_all=True):
            return Scope.VAULT
        case _:
            return Scope.IDENTITY


class CircuitBreaker:
    """Decides who may mint. Safe among threads. Times are monotonic seconds.

    `stop_after` failed probes, or without that bound MAX_OPEN seconds, end the attempts: see `given_up`.
    """

    def __init__(
        self,
        stop_after: int = 0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        # The last error of an outage; None while the circuit is closed.
        self.error: KlearstackVaultError | None = None
        self.given_up = False
        self.outages = 0  # how often the circuit was opened
        self.mints = 0  # successful ones; an identity that fails again after others succeeded fails by itself
        self._stop_after = stop_after
        self._monotonic = monotonic
        self._uniform = uniform
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._scope = Scope.IDENTITY
        self._opened_at = self._probe_at = 0.0
        self._asked_for = 0.0  # seconds of the outage that the endpoint's `Retry-After` asked for
        self._delay = 0.0  # seconds between two probes
        self._probing = False
        self._failed_probes = 0
        self._last_limit = 0.0  # seconds that the endpoint's last rate limit lasted
        self._minting = 0
        self._max_minting = math.inf
        self._cautious_mints = 0
        self._has_worked = False

    @property
    def probe_in(self) -> float:
        """Seconds until the next probe; 0 while the circuit is closed."""
        return max(0.0, self._probe_at - self._monotonic()) if self.error else 0.0

    @property
    def cautious(self) -> bool:
        """Whether to write to Vault before minting, as Vault has failed or rejected a write."""
        return self._cautious_mints > 0

    def acquire(self) -> Permit:
        """Return what the caller may do. After MINT and PROBE it must call `record` or `release`."""
        with self._lock:
            if self.error is None:
                if self._minting >= self._max_minting:
                    return Permit.READ
                self._minting += 1
                return Permit.MINT
            if not self._probing and self._monotonic() >= self._probe_at:
                self._probing = True
                self._minting += 1
                return Permit.PROBE
            return Permit.NONE if self._scope is Scope.VAULT else Permit.READ

    def record(
        self,
        permit: Permit,
        exc: KlearstackVaultError | None,
        *,
        minted: bool = False,
        before: int | None = None,
    ) -> bool:
        """Record a result. Return whether to try the identity again, as the failure is not its own.

        `before`: the value of `mints` when this identity failed the last time.
        """
        with self._lock:
            self._minting -= 1
            is_probe = permit is Permit.PROBE
            self._probing &= not is_probe
            scope = Scope.IDENTITY if exc is None else scope_of(exc)
            self._has_worked |= exc is None
            if exc and scope is Scope.VAULT and not (exc.retryable or self._has_worked):
                return False  # what has never worked is a wrong configuration, and not an outage
            if isinstance(exc, StoreError):
                self._cautious_mints = CAUTIOUS_MINTS
            if exc is None or scope is Scope.IDENTITY:
                self._record_response(probe=is_probe, minted=minted, of_endpoint=isinstance(exc, SourceError))
                return False
            if self.error is not None:
                self._record_outage(exc, scope, probe=is_probe)
                return True
            if scope is Scope.ENDPOINT:
                if before is not None and self.mints > before:
                    return False
                self._in_a_row += 1
                if self._in_a_row < min(IN_A_ROW, self._stop_after or IN_A_ROW):
                    return True
            self._open(exc, scope)
            return True

    def release(self, permit: Permit) -> None:
        """Return a permit that was not used."""
        with self._lock:
            self._minting -= 1
            self._probing &= permit is not Permit.PROBE

    def _record_response(self, *, probe: bool, minted: bool, of_endpoint: bool) -> None:
        if minted:
            self.mints += 1
            self._cautious_mints = max(0, self._cautious_mints - 1)
            self._max_minting = self._max_minting + 1 if self._max_minting < MAX_PARALLEL else math.inf
        if minted or of_endpoint:
            self._in_a_row = 0
        # A token that needed no mint says nothing about the endpoint, and a mint that began before the outage nothing
        # about its end.
        if probe and self.error is not None and (minted or of_endpoint or self._scope is Scope.VAULT):
            if self._scope is Scope.RATE_LIMIT:
                self._last_limit = self._monotonic() - self._opened_at
            self.error = None
            self._failed_probes = 0
            self._max_minting = 2.0

    def _open(self, exc: KlearstackVaultError, scope: Scope) -> None:
        self.error, self._scope = exc, scope
        self.outages += 1
        self._opened_at = self._monotonic()
        self._in_a_row = 0
        self._asked_for = 0.0
        is_limit = scope is Scope.RATE_LIMIT
        self._delay = max(LIMIT_DELAY[0], LIMIT_SHARE * self._last_limit) if is_limit else PROBE_DELAY[0]
        self._defer_probe(exc)

    def _record_outage(self, exc: KlearstackVaultError, scope: Scope, *, probe: bool) -> None:
        if not probe:  # it began before the outage, and can only make the wait longer
            if asked_for := _retry_after(exc):
                self._probe_at = max(self._probe_at, self._monotonic() + asked_for)
            return
        if scope is not self._scope:
            self._scope, self._delay = scope, (LIMIT_DELAY if scope is Scope.RATE_LIMIT else PROBE_DELAY)[0]
        elif scope is Scope.RATE_LIMIT:
            step = self._last_limit / 8 if self._last_limit else self._delay
            self._delay = min(LIMIT_DELAY[1], self._delay + max(step, LIMIT_DELAY[0]))
        else:
            self._delay = min(PROBE_DELAY[1], 2 * self._delay)
        self.error = exc
        self._failed_probes += scope is not Scope.RATE_LIMIT  # which ends by waiting
        too_often = self._stop_after and self._failed_probes >= self._stop_after
        is_bounded = self._stop_after and scope is not Scope.RATE_LIMIT
        too_long = self._monotonic() - self._opened_at - self._asked_for >= MAX_OPEN
        self.given_up |= bool(too_often or (too_long and not is_bounded))
        self._defer_probe(exc)

    def _defer_probe(self, exc: KlearstackVaultError) -> None:
        asked_for = _retry_after(exc)
        if asked_for:
            wait = asked_for + self._uniform(0.1, 0.5)
        else:
            is_limit = self._scope is Scope.RATE_LIMIT
            wait = self._delay if is_limit else self._delay * self._uniform(0.8, 1.0)
        self._asked_for += asked_for
        self._probe_at = self._monotonic() + wait


def _retry_after(exc: KlearstackVaultError) -> float:
    """Return the seconds that the endpoint asks to wait; 0 if it does not say."""
    return exc.retry_after if isinstance(exc, SourceBusyError) else 0.0
