"""`watch`: tokens that are renewed while the process runs, each after two thirds of its lifetime.

The times are random, so that tokens that were minted together are not renewed together, and so that one of several
watchers renews a token and the others find the new one. After an outage the tokens that expire first are renewed first,
as many in parallel as there are workers.
"""

import logging
import random
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from vault_plugin.bulk.circuit_breaker import CircuitBreaker, Permit
from vault_plugin.bulk.schedule import Schedule
from vault_plugin.bulk.stats import Stats
from vault_plugin.bulk.step import Step
from vault_plugin.bulk.targets import EnsureResult, Targets
from vault_plugin.bulk.token_files import TokenFiles
from vault_plugin.errors import KlearstackVaultError, UserMismatchError, internal_error
from vault_plugin.manifest.entries import Entry
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline

RENEW_AT = 1 / 3  # of a token's lifetime that is left when it is renewed
SPREAD = 0.1  # of that, by which the time is earlier or later at random
MIN_LEFT = RENEW_AT * (1 + SPREAD)  # of its lifetime that a token must have left, or it is renewed
RETRY_DELAY = 1.0, 15.0  # seconds; the bound of the random wait after a failure: at first, and at most
MISMATCH_DELAY = 300.0  # seconds more after a token for another user: each attempt mints another one
GRACE = 2.0  # seconds that identities in progress have to finish; closing adds 0.5 at most
# Seconds after the next probe of an outage at which a waiting identity is due, at random.
AFTER_PROBE = 0.1, 0.3
AFTER_OWN_PROBE = 0.5  # the same for an identity that was a probe
_log = logging.getLogger(__name__)


class _Watched:
    """One identity, and what is known of its token."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.min_ttl: float | None = None  # seconds; by the settings until the token's lifetime is known
        self.retry_delays = full_jitter(*RETRY_DELAY)
        self.before: int | None = None  # successful mints when it failed the last time
        self.read_in = 0  # the outage in which its token was found to need a mint


class Watcher:
    """Renews the entries' tokens, and writes their files, from entering the `with` block until it is left."""

    def __init__(
        self,
        targets: Targets,
        entries: Iterable[Entry],
        stats: Stats,
        *,
        concurrency: int,
        rate: float | None = None,
        files: TokenFiles | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        entries = list(entries)
        stats.restrict(entries)
        self._stats = stats
        self._targets = targets
        self._files = files or TokenFiles()
        self._breaker = breaker or CircuitBreaker(workers=concurrency)
        self._stopping = threading.Event()
        self._step = Step(targets, self._breaker, rate, self._stopping)
        self._schedule = Schedule(map(_Watched, entries))
        self.tried = self._schedule.tried  # set once each identity has been tried
        self._failing: set[_Watched] = set()
        self._lock = threading.Lock()  # guards that set, and what is logged of it
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._schedule.close()
        grace = Deadline(GRACE)
        for worker in self._workers:
            worker.join(grace.left())

    @property
    def status(self) -> str:
        """How many tokens are valid, in one line."""
        valid = self._stats.valid
        return f"{valid} valid token{'s' if valid != 1 else ''}, {len(self._failing)} cannot be renewed"

    @property
    def hangs(self) -> bool:
        """Whether a worker exceeds its deadline."""
        return self._step.hangs

    def _work(self) -> None:
        while (watched := self._schedule.take()) is not None:
            self._schedule.put(watched, self._renew(watched))

    def _renew(self, watched: _Watched) -> float:
        """Ensure that the token is valid; return the seconds until the next attempt."""
        permit = self._breaker.acquire()
        if permit is Permit.NONE or (permit is Permit.READ and watched.read_in == self._breaker.outages):
            return self._after_probe()
        try:
            with self._targets.slot(self._stopping) as admitted:
                identity, min_ttl = watched.entry.identity, watched.min_ttl
                ensured = self._step.run(identity, permit, min_ttl=min_ttl) if admitted else None
        except Exception as exc:  # noqa: BLE001  an internal error of one identity does not stop the others
            error = _as_ours(exc)
            delay = self._failed(watched, error)
            return self._after_probe(AFTER_OWN_PROBE) if self._record(watched, permit, error) else delay
        self._record(watched, permit, minted=ensured is not None and ensured.result == "minted")
        if ensured is None:
            return self._after_probe() if permit is Permit.READ else 0.0
        try:
            delay = self._count(watched, ensured)
            if watched.entry.file is not None:
                with self._step.timed():
                    self._files.write(Path(watched.entry.file), ensured.grant.access.token)
        except Exception as exc:  # noqa: BLE001  as above
            return self._failed(watched, _as_ours(exc))
        self._succeeded(watched)
        return delay

    def _after_probe(self, seconds: float | None = None) -> float:
        """Return the seconds until the next probe, and so many more, or a few at random."""
        return self._breaker.probe_in + (seconds or random.uniform(*AFTER_PROBE))  # noqa: S311  no secret

    def _record(
        self,
        watched: _Watched,
        permit: Permit,
        error: KlearstackVaultError | None = None,
        *,
        minted: bool = False,
    ) -> bool:
        """Record the result in the circuit breaker; return whether the failure is that of an outage."""
        if permit is Permit.READ:
            watched.read_in = self._breaker.outages
            return error is not None and self._breaker.error is not None
        if error is None and not minted and self._stopping.is_set():
            self._breaker.release(permit)
            return False
        is_outage = self._breaker.record(permit, error, minted=minted, before=watched.before)
        if is_outage:
            watched.before = self._breaker.mints
        return is_outage and self._breaker.error is not None

    def _count(self, watched: _Watched, ensured: EnsureResult) -> float:
        """Count the token; return the seconds until it is to be renewed."""
        grant = ensured.grant
        token = grant.access.token
        left = grant.access.left(grant.now)
        minted = ensured.result == "minted"
        # A minted token is new whenever it was issued: otherwise an old one would be replaced at once, again and again.
        issued_at = None if minted else token.issued_at
        life = token.expires_at - issued_at if issued_at else left
        watched.min_ttl = life * MIN_LEFT
        self._stats.count_token(watched.entry, grant, minted=minted)
        spread = random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311  no secret
        return max(0.0, left - life * RENEW_AT * spread)

    def _succeeded(self, watched: _Watched) -> None:
        watched.retry_delays = full_jitter(*RETRY_DELAY)
        with self._lock:
            if watched in self._failing:
                self._failing.discard(watched)
                if not self._failing:
                    _log.warning("all tokens can be renewed again")

    def _failed(self, watched: _Watched, error: KlearstackVaultError) -> float:
        """Count and log the failure; return the seconds until the next attempt."""
        self._stats.count_failure(error.code)
        with self._lock:
            if not self._failing:  # an outage is logged once, and not for each token
                _log.warning("line %d: %s Retrying.", watched.entry.line, error.line)
            self._failing.add(watched)
        _log.info("line %d: %s", watched.entry.line, error)
        is_mismatch = isinstance(error, UserMismatchError)
        return next(watched.retry_delays) + (MISMATCH_DELAY if is_mismatch else 0.0)


def _as_ours(exc: Exception) -> KlearstackVaultError:
    return exc if isinstance(exc, KlearstackVaultError) else internal_error(exc)
