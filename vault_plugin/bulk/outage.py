"""When bulk commands mint: not while the endpoint or Vault fails for all identities.

The first failures of an outage pause all mints. From then on one identity at a time is tried (a probe), until one
succeeds. After that the number of mints at the same time doubles with each round, so that a rate limit is not met by
all workers at once.

An endpoint that refuses more requests (429) without naming a time gets at most one request per worker in any minute
of a pause: those in flight when it began count, and the pauses between probes double from a first one that fits.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from vault_plugin.errors import (
    KlearstackVaultError,
    MountMissingError,
    SourceBusyError,
    SourceError,
    StoreError,
)

IN_A_ROW = 3  # failures of the endpoint that pause the mints; one may be the identity's own
PROBES = 1.0, 5.0  # seconds between two probes: at first, and at most; it doubles
BUSY = 1.0, 120.0  # the same where the endpoint refuses more requests (429) without naming a time
MINUTE = 60.0  # seconds in which such an endpoint refuses at most one request per worker
SHORTER = 0.97  # a part of how long that lasted the last time: it may have been too long
GUESS = 0.5  # the same while no probe was ever refused: it may have been much too long
CAREFUL = 50  # mints after a failure of Vault that are begun only when Vault has taken a write to their path
PATIENCE = 300.0  # seconds after which a pause without another bound ends


class Scope(Enum):
    """What an error says about the other identities."""

    IDENTITY = auto()  # nothing
    ENDPOINT = auto()  # the endpoint is down
    LIMIT = auto()  # the endpoint refuses more requests for now
    VAULT = auto()  # no Vault can take the token of any identity


class Turn(Enum):
    """What a worker may do now."""

    MINT = auto()
    PROBE = auto()
    CONFIRM = auto()  # find out which tokens need no mint
    WAIT = auto()


def scope_of(exc: KlearstackVaultError) -> Scope:
    """Whom an error concerns. A policy's 403 is about one path, and a quota of Vault's is throttle.py's matter."""
    match exc:
        case SourceBusyError():
            return Scope.LIMIT
        case SourceError(exit_code=SourceError.exit_code, retryable=True):
            return Scope.ENDPOINT
        case StoreError(for_all=None):
            down = isinstance(exc, MountMissingError) or exc.exit_code == StoreError.exit_code
            return Scope.VAULT if down else Scope.IDENTITY
        case StoreError(for_all=True):
            return Scope.VAULT
        case _:
            return Scope.IDENTITY


class Gate:
    """Says who may mint. Safe among threads. Moments are monotonic seconds.

    `workers` may be at it at a time. `stop_after` failed probes, or without that bound PATIENCE seconds, end a pause for
    good: see `given_up`.
    """

    def __init__(
        self,
        stop_after: int = 0,
        *,
        workers: int,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.error: KlearstackVaultError | None = None  # what paused the mints; None while there is no pause
        self.given_up = False
        self.pauses = 0  # how many there were
        self.successes = 0  # mints; whoever fails again after others succeeded fails by itself
        self._stop_after = stop_after
        self._monotonic = monotonic
        self._uniform = uniform
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._scope = Scope.IDENTITY
        self._paused_at = self._probe_at = 0.0
        self._told = 0.0  # seconds of the pause that the endpoint asked for
        self._wait = self._next_wait = 0.0
        self._probing = False
        self._failed_probes = 0
        self._probe_refused = False  # ever, because of a limit
        self._workers = workers
        # So many pauses, each twice as long as the one before, fill a minute.
        self._first_wait = max(BUSY[0], MINUTE / (2 ** min(workers, 10) - 1))
        self._busy_for = 0.0  # seconds after which the endpoint may accept requests again, by the last time
        self._refused: deque[float] = deque(maxlen=workers)  # when, in this pause and without naming a time
        self._minting = 0
        self._room = self._most = math.inf  # mints at a time; the second is a bound of the first
        self._careful = 0
        self._worked = False

    @property
    def opens_in(self) -> float:
        """Seconds until the next probe; 0 without a pause."""
        return max(0.0, self._probe_at - self._monotonic()) if self.error else 0.0

    @property
    def cautious(self) -> bool:
        """Whether to write to Vault before minting, as Vault has refused a token's path or failed."""
        return self._careful > 0

    def begin(self) -> Turn:
        """What the caller may do. `end` must follow after MINT and PROBE."""
        with self._lock:
            if self.error is None:
                if self._minting >= min(self._room, self._most):
                    return Turn.CONFIRM
                self._minting += 1
                return Turn.MINT
            if not self._probing and self._monotonic() >= self._probe_at and self._may_be_refused():
                self._probing = True
                self._minting += 1
                return Turn.PROBE
            return Turn.WAIT if self._scope is Scope.VAULT else Turn.CONFIRM

    def end(
        self, turn: Turn, exc: KlearstackVaultError | None, *, minted: bool = False, before: int | None = None
    ) -> bool:
        """Learn what came of it; whether the identity is to be tried again, as what failed is not its own.

        `before`: `successes` when this identity failed the last time.
        """
        with self._lock:
            self._minting -= 1
            probe = turn is Turn.PROBE
            self._probing &= not probe
            scope = Scope.IDENTITY if exc is None else scope_of(exc)
            self._worked |= exc is None
            if exc and scope is Scope.VAULT and not (exc.retryable or self._worked):
                return False  # what never worked is a mistake, and no outage
            if isinstance(exc, StoreError):
                self._careful = CAREFUL
            if exc is None or scope is Scope.IDENTITY:
                self._answered(probe=probe, minted=minted, of_endpoint=isinstance(exc, SourceError))
                return False
            if self.error is not None:
                self._still_failing(exc, scope, probe=probe)
                return True
            if scope is Scope.ENDPOINT:
                if before is not None and self.successes > before:
                    return False
                self._in_a_row += 1
                if self._in_a_row < min(IN_A_ROW, self._stop_after or IN_A_ROW):
                    return True
            self._pause(exc, scope)
            return True

    def release(self, turn: Turn) -> None:
        """The same for a caller that did not try at all."""
        with self._lock:
            self._minting -= 1
            self._probing &= turn is not Turn.PROBE

    def _answered(self, *, probe: bool, minted: bool, of_endpoint: bool) -> None:
        if minted:
            self.successes += 1
            self._careful = max(0, self._careful - 1)
            self._room += 1
            if self._room > 2**10:
                self._room = self._most = math.inf
        if minted or of_endpoint:
            self._in_a_row = 0
        # A token that needed no mint says nothing about the endpoint, and what began before the pause nothing at all.
        if probe and self.error is not None and (minted or of_endpoint or self._scope is Scope.VAULT):
            if self._scope is Scope.LIMIT:
                lasted = self._monotonic() - self._paused_at
                self._busy_for = (SHORTER if self._probe_refused else GUESS) * lasted
                # The other half's requests are left for probes when the limit is met again.
                self._most = max(1, self._workers // 2)
            self.error = None
            self._failed_probes = 0
            self._refused.clear()
            self._room = 2.0

    def _pause(self, exc: KlearstackVaultError, scope: Scope) -> None:
        self.error, self._scope = exc, scope
        self.pauses += 1
        self._paused_at = self._monotonic()
        self._in_a_row = 0
        self._told = 0.0
        self._begin_waits()
        self._defer(exc)

    def _still_failing(self, exc: KlearstackVaultError, scope: Scope, *, probe: bool) -> None:
        if not probe:  # it began before the pause, which it may make longer
            if told := _told(exc):
                self._probe_at = max(self._probe_at, self._monotonic() + told)
            elif scope is Scope.LIMIT:
                self._note_refusal()
            return
        if scope is not self._scope:
            self._scope = scope
            self._begin_waits()
        else:
            most = (BUSY if scope is Scope.LIMIT else PROBES)[1]
            self._wait, self._next_wait = min(most, self._next_wait), 2 * self._next_wait
        self.error = exc
        self._failed_probes += scope is not Scope.LIMIT  # a limit is there to be waited for
        self._probe_refused |= scope is Scope.LIMIT
        too_often = self._stop_after and self._failed_probes >= self._stop_after
        bounded = self._stop_after and scope is not Scope.LIMIT
        too_long = self._monotonic() - self._paused_at - self._told >= PATIENCE
        self.given_up |= bool(too_often or (too_long and not bounded))
        self._defer(exc)

    def _begin_waits(self) -> None:
        first = self._first_wait if self._scope is Scope.LIMIT else PROBES[0]
        self._wait, self._next_wait = first, 2 * first
        if self._scope is Scope.LIMIT and self._busy_for > first:
            self._wait, self._next_wait = min(BUSY[1], self._busy_for), max(BUSY[0], self._busy_for / 8)

    def _defer(self, exc: KlearstackVaultError) -> None:
        told = _told(exc)
        wait = told + self._uniform(0.1, 0.5)
        if not told:
            wait = self._wait if self._scope is Scope.LIMIT else self._wait * self._uniform(0.8, 1.0)
        self._told += told
        self._probe_at = self._monotonic() + wait
        if self._scope is Scope.LIMIT and not told:
            self._note_refusal()

    def _note_refusal(self) -> None:
        """Put the next probe off to where it is no worker's second request in a minute."""
        self._refused.append(self._monotonic())
        if len(self._refused) == self._workers:
            self._probe_at = max(self._probe_at, self._refused[0] + MINUTE)

    def _may_be_refused(self) -> bool:
        """Whether a probe is no worker's second request in a minute, if all that are in flight are refused as well."""
        now = self._monotonic()
        refused = sum(moment + MINUTE > now for moment in self._refused)
        return not refused or refused + self._minting < self._workers


def _told(exc: KlearstackVaultError) -> float:
    """Seconds that the endpoint asks to wait; 0 if it does not say."""
    return exc.retry_after if isinstance(exc, SourceBusyError) else 0.0
