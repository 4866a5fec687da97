"""When bulk commands mint: not while the endpoint or Vault fails for all identities.

The first failures of an outage open the circuit: no identity mints. From then on one identity at a time is tried (a
probe, see probes.py), until one succeeds. After that the number of parallel mints grows with each success, so that not
all workers run into a rate limit at once.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from vault_plugin.bulk.probes import Probes
from vault_plugin.bulk.scope import Scope, scope_of
from vault_plugin.errors import KlearstackVaultError, SourceError, StoreError

IN_A_ROW = 3  # consecutive failures of the endpoint that open the circuit; one may be the identity's own
CAUTIOUS_MINTS = 50  # mints after a failure of Vault that begin only after a successful write to their path
MAX_OPEN = 300.0  # seconds after which an outage without another bound is given up
MAX_PARALLEL = 2**10  # mints, from which on their number is not limited any more


class Permit(Enum):
    """What a worker may do now."""

    MINT = auto()
    PROBE = auto()
    READ = auto()  # find out whether the identity needs no mint
    NONE = auto()


class CircuitBreaker:
    """Decides who may mint, of so many `workers`. Safe among threads.

    `stop_after` failed probes, or without that bound MAX_OPEN seconds, end the attempts: see `given_up`.
    """

    def __init__(
        self,
        stop_after: int = 0,
        *,
        workers: int,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        # The last error of an outage; None while the circuit is closed.
        self.error: KlearstackVaultError | None = None
        self.given_up = False
        self.outages = 0  # how often the circuit was opened
        self.mints = 0  # successful ones; an identity that fails again after others succeeded fails by itself
        self._stop_after = stop_after
        self._workers = workers
        self._lock = threading.Lock()
        self._probes = Probes(workers, monotonic, uniform)
        self._probing = False
        self._failed_probes = 0
        self._in_a_row = 0
        self._minting = 0
        self._max_minting = math.inf  # grows with each mint
        self._limit = math.inf  # of the parallel mints after a rate limit
        self._cautious_mints = 0
        self._has_worked = False

    @property
    def probe_in(self) -> float:
        """Seconds until the next probe; 0 while the circuit is closed."""
        return self._probes.due_in if self.error else 0.0

    @property
    def cautious(self) -> bool:
        """Whether to write to Vault before minting, as Vault has failed or rejected a write."""
        return self._cautious_mints > 0

    def acquire(self) -> Permit:
        """Return what the caller may do. After MINT and PROBE it must call `record` or `release`."""
        with self._lock:
            if self.error is None:
                if self._minting >= min(self._max_minting, self._limit):
                    return Permit.READ
                self._minting += 1
                return Permit.MINT
            if not self._probing and self._probes.is_due(self._minting):
                self._probing = True
                self._minting += 1
                return Permit.PROBE
            return Permit.NONE if self._probes.scope is Scope.VAULT else Permit.READ

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
            self._max_minting += 1
            if self._max_minting > MAX_PARALLEL:
                self._max_minting = self._limit = math.inf
        if minted or of_endpoint:
            self._in_a_row = 0
        # A token that needed no mint says nothing about the endpoint, and a mint that began before the outage nothing
        # about its end.
        if probe and self.error is not None and (minted or of_endpoint or self._probes.scope is Scope.VAULT):
            self._close()

    def _open(self, exc: KlearstackVaultError, scope: Scope) -> None:
        self.error = exc
        self.outages += 1
        self._in_a_row = 0
        self._probes.begin(exc, scope)

    def _close(self) -> None:
        if self._probes.scope is Scope.RATE_LIMIT:
            # The requests of the other half are left for probes when the rate limit is reached again.
            self._limit = max(1, self._workers // 2)
        self._probes.end()
        self.error = None
        self._failed_probes = 0
        self._max_minting = 2.0

    def _record_outage(self, exc: KlearstackVaultError, scope: Scope, *, probe: bool) -> None:
        if not probe:
            self._probes.fail_late(exc, scope)
            return
        self.error = exc
        self._failed_probes += scope is not Scope.RATE_LIMIT  # which ends by waiting
        too_often = self._stop_after and self._failed_probes >= self._stop_after
        is_bounded = self._stop_after and scope is not Scope.RATE_LIMIT
        too_long = self._probes.lasting >= MAX_OPEN
        self.given_up |= bool(too_often or (too_long and not is_bounded))
        self._probes.fail(exc, scope)
