"""`sync`: a valid token in Vault for each identity of a manifest; a run that was stopped can be resumed."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vault_plugin.bulk.circuit_breaker import CircuitBreaker, Permit
from vault_plugin.bulk.report import Result, SyncResult
from vault_plugin.bulk.scope import Scope, scope_of
from vault_plugin.bulk.step import Step
from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import BusyError, KlearstackVaultError, internal_error
from vault_plugin.manifest.entries import Entry
from vault_plugin.timing.deadline import Deadline

GRACE = 3.0  # seconds that identities in progress have to finish when the run is stopped; closing adds 0.5 at most


class _Pending(NamedTuple):
    """An identity that waits for a permit; `before`: successful mints when it failed the last time."""

    entry: Entry
    before: int | None = None


class Sync:
    """Processes entries in parallel; `report` is called with each result, one at a time.

    `rate` bounds the mints begun per second, `stop_after` the consecutive failures and the failed probes of an outage
    (0: no bound), `deadline` the whole run. `renew` mints although a token is valid. After `stop()`, or when a
    bound is reached, identities in progress have GRACE seconds to finish; a later run processes the remaining ones. With
    `wrap_ttl` (seconds), each result has a wrapping token of the access token.

    While the endpoint or Vault fails for all (see circuit_breaker.py), identities that need a mint wait.
    """

    def __init__(
        self,
        targets: Targets,
        report: Callable[[SyncResult], None],
        *,
        concurrency: int,
        rate: float | None = None,
        stop_after: int = 0,
        deadline: Deadline | None = None,
        check: bool = False,
        wrap_ttl: float | None = None,
        renew: bool = False,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.counts: Counter[Result] = Counter()
        self.stopped_by = ""  # why the run ended early
        self.outage: KlearstackVaultError | None = None  # why those failed that were waiting at the end
        self.waited = 0  # how many of them there were
        self._targets = targets
        self._report = report
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._stop_after = stop_after
        self._deadline = deadline
        self._check = check
        self._wrap_ttl = wrap_ttl
        self._renew = renew
        self._breaker = breaker or CircuitBreaker(stop_after, workers=concurrency)
        self._step = Step(targets, self._breaker, rate, self._stopping, renew=renew)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._in_a_row = 0
        self._waiting: deque[_Pending] = deque()
        self._in_progress: dict[threading.Thread, Entry] = {}
        self._failure: BaseException | None = None  # of the entries or of `report`, and not of an identity

    def stop(self, why: str) -> None:
        """Begin nothing more. A signal handler may call this, as it takes no lock."""
        self.stopped_by = self.stopped_by or why

    def run(self, entries: Iterator[Entry]) -> None:
        """Process the entries. Raises what the entries and `report` raise."""
        workers = [
            threading.Thread(target=self._work, args=(entries,), daemon=True)
            for _ in range(self._concurrency)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive() and not self._stopping.is_set():
                worker.join(0.05)
                if self._deadline is not None and not self._deadline.left():
                    self.stop("the deadline has passed")
                if self.stopped_by:
                    self._stopping.set()
        grace = Deadline(GRACE)
        for worker in workers:
            worker.join(grace.left())
        with self._lock:
            for entry in self._in_progress.values():
                late = BusyError("It was in progress when the run was stopped.", hint="Run again.")
                self._count(SyncResult(entry, "failed", error=late))
            self._in_progress.clear()  # later results of these are ignored
            if self._failure is None:
                self._fail_the_waiting()
        if self._failure is not None:
            raise self._failure

    def _fail_the_waiting(self) -> None:
        """Count the identities that failed in an outage; also those that were not tried, if the run was given up."""
        error = self._breaker.error or self.outage
        failed = [one for one in self._waiting if self._breaker.given_up or one.before is not None]
        if error is not None and failed:
            self.outage, self.waited = error, len(failed)
            for one in failed:
                self._count(SyncResult(one.entry, "failed", error=error, outage=True))
        self._waiting.clear()

    def _work(self, entries: Iterator[Entry]) -> None:
        worker = threading.current_thread()
        try:
            while (chosen := self._next(entries)) is not None:
                result, again = self._process(*chosen)
                with self._changed:
                    if self._in_progress.pop(worker, None):
                        if again:
                            self._waiting.append(again)
                        elif result:
                            self._count(result)
                    if self._breaker.given_up:
                        self._stop_now("the outage did not end")
                    self._changed.notify_all()
        except BaseException as exc:  # noqa: BLE001  `run` raises it
            self._failure = exc
            self._stopping.set()

    def _next(self, entries: Iterator[Entry]) -> tuple[_Pending, Permit] | None:
        """Wait for what this thread does next; None at the end."""
        worker = threading.current_thread()
        with self._changed:
            while not self._stopping.is_set():
                permit = Permit.MINT if self._check else self._breaker.acquire()
                try:
                    chosen = self._choose(entries, permit)
                except BaseException:
                    self._in_progress.pop(worker, None)
                    raise
                if chosen is not None:
                    self._in_progress[worker] = chosen.entry
                    return chosen, permit
                if permit in (Permit.MINT, Permit.PROBE):
                    self._release(permit)
                if permit is not Permit.NONE and not self._waiting and not self._in_progress:
                    return None
                self._changed.wait(min(max(self._breaker.probe_in, 0.01), 0.5))
            return None

    def _choose(self, entries: Iterator[Entry], permit: Permit) -> _Pending | None:
        """Choose an identity. Probes rotate through those that wait, which otherwise come after all new ones."""
        if permit is Permit.PROBE and self._waiting:
            return self._waiting.popleft()
        if permit is Permit.NONE:
            return None
        # The caller holds the lock, as one thread at a time may use an iterator.
        if (entry := next(entries, None)) is not None:
            return _Pending(entry)
        return self._waiting.popleft() if permit is not Permit.READ and self._waiting else None

    def _process(self, one: _Pending, permit: Permit) -> tuple[SyncResult | None, _Pending | None]:
        """Return the identity's result; or what is tried again, if an outage prevented one."""
        with self._targets.slot(self._stopping) as admitted:
            result = self._result(one.entry, permit) if admitted else None
        if result is None:
            self._release(permit)
            return None, one if admitted and permit is Permit.READ else None
        if self._check or permit is Permit.READ:
            return result, None
        minted = result.result == "minted"
        if self._breaker.record(permit, result.error, minted=minted, before=one.before):
            self.outage = result.error
            return None, _Pending(one.entry, self._breaker.mints)
        return result, None

    def _release(self, permit: Permit) -> None:
        if not self._check and permit is not Permit.READ:
            self._breaker.release(permit)

    def _result(self, entry: Entry, permit: Permit) -> SyncResult | None:
        """Return the identity's result; None if it needs a mint that is not permitted now."""
        try:
            if self._check:
                found = None if self._renew else self._targets.check(entry.identity)
                return SyncResult.of(entry, found) if found else SyncResult(entry, "would_mint")
            ensured = self._step.run(entry.identity, permit)
            if ensured is None:
                return None
            ttl = self._wrap_ttl
            wrapping = None if ttl is None else self._targets.wrap(ensured.grant, ttl)
            return SyncResult.of(entry, ensured, wrapping)
        except KlearstackVaultError as exc:
            # While Vault is down, whether an identity needs a mint cannot be found out.
            is_unknown = permit is Permit.READ and scope_of(exc) is Scope.VAULT
            return None if is_unknown else SyncResult(entry, "failed", error=exc)
        except Exception as exc:  # noqa: BLE001  an internal error of one identity does not stop the others
            return SyncResult(entry, "failed", error=internal_error(exc))

    def _count(self, result: SyncResult) -> None:
        self.counts[result.result] += 1
        self._in_a_row = self._in_a_row + 1 if result.error and not result.outage else 0
        if self._in_a_row == self._stop_after and self._stop_after:
            self._stop_now(f"{self._in_a_row} consecutive failures")
        self._report(result)

    def _stop_now(self, why: str) -> None:
        self.stop(why)
        self._stopping.set()
