"""When bulk commands mint: not while the endpoint or Vault fails for all identities.

The first failures of an outage pause all mints. From then on one identity at a time is tried (a probe), until one
succeeds. After that the number of mints at the same time doubles with each round, so that a rate limit is not met by
all workers at once.
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

IN_A_ROW = 3  # failures of the endpoint that pause the mints; one may be the identity's own
PROBES = 1.0, 5.0  # seconds between two probes: at first, and at most; it doubles
BUSY = 1.0, 120.0  # the same where the endpoint refuses more requests (429) without naming a time
SHORTER = 0.97  # a part of how long that lasted the last time: it may have been too long
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

    `stop_after` failed probes, or without that bound PATIENCE seconds, end a pause for good: see `given_up`.
    """

    def __init__(
        self,
        stop_after: int = 0,
        *,
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
        self._wait = 0.0
        self._probing = False
        self._failed_probes = 0
        self._busy_for = 0.0  # how long the endpoint refused more requests the last time
        self._minting = 0
        self._room = math.inf  # mints at a time
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
                if self._minting >= self._room:
                    return Turn.CONFIRM
                self._minting += 1
                return Turn.MINT
            if not self._probing and self._monotonic() >= self._probe_at:
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
            self._room = self._room + 1 if self._room < 2**10 else math.inf
        if minted or of_endpoint:
            self._in_a_row = 0
        # A token that needed no mint says nothing about the endpoint, and what began before the pause nothing at all.
        if probe and self.error is not None and (minted or of_endpoint or self._scope is Scope.VAULT):
            if self._scope is Scope.LIMIT:
                self._busy_for = self._monotonic() - self._paused_at
            self.error = None
            self._failed_probes = 0
            self._room = 2.0

    def _pause(self, exc: KlearstackVaultError, scope: Scope) -> None:
        self.error, self._scope = exc, scope
        self.pauses += 1
        self._paused_at = self._monotonic()
        self._in_a_row = 0
        self._told = 0.0
        self._wait = PROBES[0] if scope is not Scope.LIMIT else max(BUSY[0], SHORTER * self._busy_for)
        self._defer(exc)

    def _still_failing(self, exc: KlearstackVaultError, scope: Scope, *, probe: bool) -> None:
        if not probe:  # it began before the pause, which it may make longer
            if told := _told(exc):
                self._probe_at = max(self._probe_at, self._monotonic() + told)
            return
        if scope is not self._scope:
            self._scope, self._wait = scope, (PROBES if scope is not Scope.LIMIT else BUSY)[0]
        elif scope is Scope.LIMIT:
            step = self._busy_for / 8 if self._busy_for else self._wait
            self._wait = min(BUSY[1], self._wait + max(step, BUSY[0]))
        else:
            self._wait = min(PROBES[1], 2 * self._wait)
        self.error = exc
        self._failed_probes += scope is not Scope.LIMIT  # a limit is there to be waited for
        too_often = self._stop_after and self._failed_probes >= self._stop_after
        bounded = self._stop_after and scope is not Scope.LIMIT
        too_long = self._monotonic() - self._paused_at - self._told >= PATIENCE
        self.given_up |= bool(too_often or (too_long and not bounded))
        self._defer(exc)

    def _defer(self, exc: KlearstackVaultError) -> None:
        told = _told(exc)
        wait = told + self._uniform(0.1, 0.5)
        if not told:
            wait = self._wait if self._scope is Scope.LIMIT else self._wait * self._uniform(0.8, 1.0)
        self._told += told
        self._probe_at = self._monotonic() + wait


def _told(exc: KlearstackVaultError) -> float:
    """Seconds that the endpoint asks to wait; 0 if it does not say."""
    return exc.retry_after if isinstance(exc, SourceBusyError) else 0.0
