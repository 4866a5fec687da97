"""A whole manifest at once: every token in Vault and good, by bounded work that can be stopped and begun again."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from vault_plugin.clock import format_rfc3339
from vault_plugin.errors import BusyError, KlearstackVaultError, bug
from vault_plugin.formats import describe_error
from vault_plugin.manifest import Entry
from vault_plugin.retry import Deadline, Pace
from vault_plugin.targets import Outcome, Targets

GRACE = 3.0  # seconds that what is in flight has to finish when the run is stopped; closing takes 0.5 more at most

Result = Literal["fresh", "minted", "copied", "would_mint", "failed"]


class Done(NamedTuple):
    """What became of one identity. `expires_at` is Unix seconds."""

    entry: Entry
    result: Result
    expires_at: int | None = None
    error: KlearstackVaultError | None = None

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


class Sync:
    """Works through entries with some threads; `tell` hears of each, one at a time.

    `rate` bounds the mints begun per second, `stop_after` the failures in a row (0: no bound), `deadline` (seconds) the
    whole run. After `stop()`, or when a bound is reached, what is in flight has GRACE seconds to finish; the rest is left
    for another run, which finds what this one has done.
    """

    def __init__(
        self,
        targets: Targets,
        tell: Callable[[Done], None],
        *,
        concurrency: int,
        rate: float | None = None,
        stop_after: int = 0,
        deadline: float | None = None,
        check: bool = False,
    ) -> None:
        self.counts: Counter[Result] = Counter()
        self.stopped_by = ""  # why the run was not gone through with
        self._targets = targets
        self._tell = tell
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._pace = None if rate is None else Pace(rate, sleep=self._stopping.wait)
        self._stop_after = stop_after
        self._deadline = None if deadline is None else Deadline(deadline)
        self._check = check
        self._lock = threading.Lock()
        self._in_a_row = 0
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
                self._count(Done(entry, "failed", error=late))
            self._in_flight.clear()  # whoever ends after this is not heard
        if self._failure is not None:
            raise self._failure

    def _work(self, entries: Iterator[Entry]) -> None:
        me = threading.current_thread()
        try:
            while True:
                with self._lock:  # an iterator belongs to one thread at a time
                    entry = None if self._stopping.is_set() else next(entries, None)
                    if entry is None:
                        return
                    self._in_flight[me] = entry
                done = self._one(entry)
                with self._lock:
                    if self._in_flight.pop(me, None) and done:
                        self._count(done)
        except BaseException as exc:  # noqa: BLE001  it is raised by `run`
            self._failure = exc
            self._stopping.set()

    def _one(self, entry: Entry) -> Done | None:
        with self._targets.slot(self._stopping) as admitted:
            return self._result(entry) if admitted else None

    def _result(self, entry: Entry) -> Done | None:
        try:
            if self._check:
                found = self._targets.check(entry.identity)
                return _done(entry, found) if found else Done(entry, "would_mint")
            if self._pace is not None:
                # The wait comes before the lock: nobody shall wait for one who waits.
                if found := self._targets.check(entry.identity, repair=True):
                    return _done(entry, found)
                self._pace.wait()
                if self._stopping.is_set():
                    return None
            return _done(entry, self._targets.ensure(entry.identity))
        except KlearstackVaultError as exc:
            return Done(entry, "failed", error=exc)
        except Exception as exc:  # noqa: BLE001  one identity's bug is not the others'
            return Done(entry, "failed", error=bug(exc))

    def _count(self, done: Done) -> None:
        self.counts[done.result] += 1
        self._in_a_row = self._in_a_row + 1 if done.error else 0
        if self._in_a_row == self._stop_after and self._stop_after:
            self.stop(f"{self._in_a_row} in a row failed")
            self._stopping.set()
        self._tell(done)


def _done(entry: Entry, outcome: Outcome) -> Done:
    return Done(entry, outcome.result, outcome.grant.access.token.expires_at)
