"""A whole manifest at once: every token in Vault and good, by bounded work that can be stopped and begun again."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from vault_plugin.bulk.outage import Gate, Scope, Turn, scope_of
from vault_plugin.bulk.targets import Outcome, Targets
from vault_plugin.errors import BusyError, KlearstackVaultError, bug
from vault_plugin.manifest.entries import Entry
from vault_plugin.output.formats import describe_error
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import RateLimiter

GRACE = 3.0  # seconds that what is in flight has to finish when the run is stopped; closing takes 0.5 more at most

Result = Literal["fresh", "minted", "copied", "would_mint", "failed"]


class SyncResult(NamedTuple):
    """What became of one identity. `expires_at` is Unix seconds."""

    entry: Entry
    result: Result
    expires_at: int | None = None
    error: KlearstackVaultError | None = None
    outage: bool = False  # whether the error is that of an outage, which is told once for all

    def describe(self) -> dict[str, object]:
        """As a line of the report: plain strings, numbers and objects; no token."""
        identity = self.entry.identity
        about: dict[str, object] = {
            "line": self.entry.line,
            "company_name": identity.company_name,
            "user_id": identity.user_id,
            "result": self.result,
        }
        if self.expires_at is not None:
            about["expires_at"] = format_rfc3339(self.expires_at)
        if self.error is not None:
            about["error"] = describe_error(self.error)
        return about


class _Pending(NamedTuple):
    """An identity that waits for its turn; `before`: mints that had succeeded when it failed the last time."""

    entry: Entry
    before: int | None = None


class Sync:
    """Works through entries with some threads; `tell` hears of each, one at a time.

    `rate` bounds the mints begun per second, `stop_after` the failures in a row and the probes of an outage that fail
    (0: no bound), `deadline` (seconds) the whole run. After `stop()`, or when a bound is reached, what is in flight has
    GRACE seconds to finish; the rest is left for another run, which finds what this one has done.

    While the endpoint or Vault fails for all (see outage.py), identities wait, those excepted that need no mint.
    """

    def __init__(
        self,
        targets: Targets,
        tell: Callable[[SyncResult], None],
        *,
        concurrency: int,
        rate: float | None = None,
        stop_after: int = 0,
        deadline: float | None = None,
        check: bool = False,
        gate: Gate | None = None,
    ) -> None:
        self.counts: Counter[Result] = Counter()
        self.stopped_by = ""  # why the run was not gone through with
        self.outage: KlearstackVaultError | None = None  # what those failed of that waited at the end
        self.waited = 0  # how many of them there were
        self._targets = targets
        self._tell = tell
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._rate_limiter = None if rate is None else RateLimiter(rate, sleep=self._stopping.wait)
        self._stop_after = stop_after
        self._deadline = None if deadline is None else Deadline(deadline)
        self._check = check
        self._gate = gate or Gate(stop_after)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._in_a_row = 0
        self._waiting: deque[_Pending] = deque()
        self._in_flight: dict[threading.Thread, Entry] = {}
        self._failure: BaseException | None = None  # of the entries or of `tell`: nobody's identity's

    def stop(self, why: str) -> None:
        """Begin nothing more. A signal handler may call this: no lock is taken here."""
        self.stopped_by = self.stopped_by or why

    def run(self, entries: Iterator[Entry]) -> None:
        """Work through them. Raises what the entries and `tell` raise."""
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
            for entry in self._in_flight.values():
                late = BusyError("It was in flight when the run was stopped.", hint="Run again.")
                self._count(SyncResult(entry, "failed", error=late))
            self._in_flight.clear()  # whoever ends after this is not heard
            if self._failure is None:
                self._fail_the_waiting()
        if self._failure is not None:
            raise self._failure

    def _fail_the_waiting(self) -> None:
        """Count those that an outage kept from being done: all that were tried; the others, too, if it was given up."""
        error = self._gate.error or self.outage
        failed = [one for one in self._waiting if self._gate.given_up or one.before is not None]
        if error is not None and failed:
            self.outage, self.waited = error, len(failed)
            for one in failed:
                self._count(SyncResult(one.entry, "failed", error=error, outage=True))
        self._waiting.clear()

    def _work(self, entries: Iterator[Entry]) -> None:
        me = threading.current_thread()
        try:
            while (step := self._next(entries)) is not None:
                one, turn = step
                done, again = self._one(one, turn)
                with self._changed:
                    if self._in_flight.pop(me, None):
                        if again:
                            self._waiting.append(again)
                        elif done:
                            self._count(done)
                    if self._gate.given_up:
                        self._stop_now("an outage lasts")
                    self._changed.notify_all()
        except BaseException as exc:  # noqa: BLE001  it is raised by `run`
            self._failure = exc
            self._stopping.set()

    def _next(self, entries: Iterator[Entry]) -> tuple[_Pending, Turn] | None:
        """What this thread does next; None at the end."""
        me = threading.current_thread()
        with self._changed:
            while not self._stopping.is_set():
                turn = Turn.MINT if self._check else self._gate.begin()
                try:
                    one = self._chosen(entries, turn)
                except BaseException:
                    self._in_flight.pop(me, None)
                    raise
                if one is not None:
                    self._in_flight[me] = one.entry
                    return one, turn
                if turn in (Turn.MINT, Turn.PROBE) and not self._check:
                    self._gate.release(turn)
                if turn is not Turn.WAIT and not self._waiting and not self._in_flight:
                    return None
                self._changed.wait(min(max(self._gate.opens_in, 0.01), 0.5))
            return None

    def _chosen(self, entries: Iterator[Entry], turn: Turn) -> _Pending | None:
        """Probes rotate through those that wait; all others wait until each identity has been looked at."""
        if turn is Turn.PROBE and self._waiting:
            return self._waiting.popleft()
        if turn is Turn.WAIT:
            return None
        # An iterator belongs to one thread at a time.
        if (entry := next(entries, None)) is not None:
            return _Pending(entry)
        return self._waiting.popleft() if turn is not Turn.CONFIRM and self._waiting else None

    def _one(self, one: _Pending, turn: Turn) -> tuple[SyncResult | None, _Pending | None]:
        """What became of it; or its next turn, if an outage kept it from being done."""
        entry = one.entry
        with self._targets.slot(self._stopping) as admitted:
            if not admitted:
                self._released(turn)
                return None, None
            if turn is Turn.CONFIRM:
                done = self._confirmed(entry)
                return (done, None) if done else (None, one)
            done = self._result(entry, turn)
        if self._check:
            return done, None
        if done is None:
            self._released(turn)
            return None, None
        minted = done.result == "minted"
        if self._gate.end(turn, done.error, minted=minted, before=one.before):
            self.outage = done.error
            return None, _Pending(entry, self._gate.successes)
        return done, None

    def _released(self, turn: Turn) -> None:
        if not self._check and turn is not Turn.CONFIRM:
            self._gate.release(turn)

    def _confirmed(self, entry: Entry) -> SyncResult | None:
        """Its token, if that needs no mint; None also where this cannot be found out now."""
        try:
            found = self._targets.check(entry.identity, repair=True)
        except KlearstackVaultError as exc:
            return None if scope_of(exc) is Scope.VAULT else SyncResult(entry, "failed", error=exc)
        except Exception as exc:  # noqa: BLE001  as below
            return SyncResult(entry, "failed", error=bug(exc))
        return _result_of(entry, found) if found else None

    def _result(self, entry: Entry, turn: Turn) -> SyncResult | None:
        try:
            if self._check:
                found = self._targets.check(entry.identity)
                return _result_of(entry, found) if found else SyncResult(entry, "would_mint")
            if self._rate_limiter is not None:
                # The wait comes before the lock: nobody shall wait for one who waits.
                if found := self._targets.check(entry.identity, repair=True):
                    return _result_of(entry, found)
                self._rate_limiter.acquire()
                if self._stopping.is_set():
                    return None
            cautious = turn is Turn.PROBE or self._gate.cautious
            return _result_of(entry, self._targets.ensure(entry.identity, cautious=cautious))
        except KlearstackVaultError as exc:
            return SyncResult(entry, "failed", error=exc)
        except Exception as exc:  # noqa: BLE001  one identity's bug is not the others'
            return SyncResult(entry, "failed", error=bug(exc))

    def _count(self, done: SyncResult) -> None:
        self.counts[done.result] += 1
        self._in_a_row = self._in_a_row + 1 if done.error and not done.outage else 0
        if self._in_a_row == self._stop_after and self._stop_after:
            self._stop_now(f"{self._in_a_row} in a row failed")
        self._tell(done)

    def _stop_now(self, why: str) -> None:
        self.stop(why)
        self._stopping.set()


def _result_of(entry: Entry, outcome: Outcome) -> SyncResult:
    return SyncResult(entry, outcome.result, outcome.grant.access.token.expires_at)
