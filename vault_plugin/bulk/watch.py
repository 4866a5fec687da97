"""Tokens kept good for as long as the process lives: each is renewed when two thirds of its life are over.

The times are drawn, so that tokens that were minted together do not come back together, and so that of several
watchers one renews and the others find the new token. After an outage the tokens that end first come first, as many
at a time as there are workers.
"""

import heapq
import itertools
import logging
import os
import random
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Self

from vault_plugin import children
from vault_plugin.bulk.outage import Gate, Turn
from vault_plugin.bulk.targets import Outcome, Targets
from vault_plugin.errors import KlearstackVaultError, UsageError, UserMismatchError, bug
from vault_plugin.manifest.entries import Entry
from vault_plugin.output.private_files import PRIVATE, Rights, holds, make_folders, write_file
from vault_plugin.settings.declarations import without_credentials
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import RateLimiter
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Token

LEFT = (
    1 / 3,
    0.1,
)  # of a token's life, when it is renewed; how far the drawing goes to either side, as a part of that
LATEST = LEFT[0] * (1 + LEFT[1])  # what a token must have left, in our eyes, or it is renewed
RETRY = 1.0, 15.0  # seconds that the wait after a failure is drawn from: at first, and at most
MISMATCH_RETRY = (
    300.0  # seconds; a token that names another user is no outage, and each try mints another one
)
GRACE = (
    2.0  # seconds that what is in flight, and then the hook, have to finish; closing takes 0.5 more at most
)
BEHIND = (
    0.1,
    0.3,
    0.5,
)  # seconds after the next probe of an outage: those that wait for it, from and to; those that have been probes
EXCESS = 5.0  # seconds beyond its deadline after which a worker hangs
HOOK_WITHIN = 60.0  # seconds for the command that runs after a change
_log = logging.getLogger(__name__)


class Expiry(NamedTuple):
    """When an identity's access token expires: `at` in Unix seconds by the servers' clocks, `end` in monotonic seconds."""

    entry: Entry
    at: float
    end: float


@dataclass
class Stats:
    """What is counted, from the start of the process."""

    mints: int = 0
    waits: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ends: dict[Identity, Expiry] = field(default_factory=dict)


class _Watched:
    """One identity, and what is known of its token."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.min_ttl: float | None = None  # seconds; by the settings until its life is known
        self.pauses = full_jitter(*RETRY)
        self.before: int | None = None  # mints that had succeeded when it failed the last time
        self.confirmed = 0  # the pause in which it was found to need a mint


class Watcher:
    """Keeps the entries' tokens good, and their files, from entering the `with` block until it is left."""

    def __init__(
        self,
        targets: Targets,
        entries: Iterable[Entry],
        stats: Stats,
        *,
        concurrency: int,
        rate: float | None = None,
        files: Rights = PRIVATE,
        on_change: "Hook | None" = None,
        gate: Gate | None = None,
    ) -> None:
        self._targets = targets
        self._gate = gate or Gate()
        self._stats = stats
        self._files = files
        self._on_change = on_change
        self._stopping = threading.Event()
        self._rate_limiter = None if rate is None else RateLimiter(rate, sleep=self._stopping.wait)
        self._turn = itertools.count()
        # What is due next, by monotonic seconds; nobody is before anybody else at the start.
        self._due = [(0.0, next(self._turn), _Watched(entry)) for entry in entries]
        self._changed = threading.Condition()  # guards the schedule and the counters
        entries_of = {watched.entry.identity: watched.entry for _, _, watched in self._due}
        self._untried = set(entries_of)
        self._failing: set[Identity] = set()
        self.tried = threading.Event()  # every identity, once
        stats.ends = {
            one: expiry._replace(entry=entries_of[one])
            for one, expiry in stats.ends.items()
            if one in entries_of
        }
        if not self._due:
            self.tried.set()
        self._ends: dict[
            threading.Thread, float
        ] = {}  # by when each is to be done with its step, monotonic seconds
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        grace = Deadline(GRACE)
        for worker in self._workers:
            worker.join(grace.left())

    @property
    def status(self) -> str:
        """In a line, how many tokens are good."""
        with self._changed:
            good = sum(expiry.end > time.monotonic() for expiry in self._stats.ends.values())
            tokens = "1 token is" if good == 1 else f"{good} tokens are"
            return f"{tokens} good, {len(self._failing)} cannot be renewed"

    @property
    def hangs(self) -> bool:
        """Whether a worker exceeds its deadline, which nothing that a server does should bring about."""
        return any(time.monotonic() > end + EXCESS for end in list(self._ends.values()))

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Something that ends by the deadline of one call."""
        worker = threading.current_thread()
        self._ends[worker] = time.monotonic() + self._targets.deadline
        try:
            yield
        finally:
            del self._ends[worker]

    def _work(self) -> None:
        while (watched := self._next()) is not None:
            delay = self._renew(watched)
            with self._changed:
                heapq.heappush(self._due, (time.monotonic() + delay, next(self._turn), watched))
                self._changed.notify()
                self._untried.discard(watched.entry.identity)
                if not self._untried:
                    self.tried.set()

    def _next(self) -> _Watched | None:
        """What is due, when it is; None at the end."""
        with self._changed:
            while not self._stopping.is_set():
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            return None

    def _renew(self, watched: _Watched) -> float:
        """Make the token good; seconds until it is to be looked at again."""
        turn = self._gate.begin()
        if turn is Turn.WAIT or (turn is Turn.CONFIRM and watched.confirmed == self._gate.pauses):
            return self._behind()
        ended = False
        try:
            with self._targets.slot(self._stopping) as admitted:
                outcome = self._ensured(watched, turn) if admitted else None
            if outcome is None:
                self._ended(watched, turn, None)
                return self._behind() if turn is Turn.CONFIRM else 0.0
            self._ended(watched, turn, None, minted=outcome.result == "minted")
            ended = True
            delay = self._noted(watched, outcome)
            if watched.entry.file is not None:
                with self._step():
                    self._write(Path(watched.entry.file), outcome.grant.access.token)
        except Exception as any_exc:  # noqa: BLE001  one identity's bug is not the others'
            exc = any_exc if isinstance(any_exc, KlearstackVaultError) else bug(any_exc)
            delay = self._failed(watched, exc)
            return self._behind(BEHIND[2]) if not ended and self._ended(watched, turn, exc) else delay
        self._succeeded(watched)
        return delay

    def _behind(self, seconds: float | None = None) -> float:
        """Seconds until the next probe, and so many more, or a few that are drawn."""
        return self._gate.opens_in + (seconds or random.uniform(*BEHIND[:2]))  # noqa: S311  no secret

    def _ended(
        self, watched: _Watched, turn: Turn, exc: KlearstackVaultError | None, *, minted: bool = False
    ) -> bool:
        """Tell the gate; whether the failure is that of an outage."""
        if turn is Turn.CONFIRM:
            watched.confirmed = self._gate.pauses
            return exc is not None and self._gate.error is not None
        if exc is None and not minted and self._stopping.is_set():
            self._gate.release(turn)
            return False
        outage = self._gate.end(turn, exc, minted=minted, before=watched.before)
        if outage:
            watched.before = self._gate.successes
        return outage and self._gate.error is not None

    def _ensured(self, watched: _Watched, turn: Turn) -> Outcome | None:
        """None if it is not this identity's turn to be minted for, or the end came before."""
        identity = watched.entry.identity
        if turn is Turn.CONFIRM:
            with self._step():
                return self._targets.check(identity, min_ttl=watched.min_ttl, repair=True)
        if self._rate_limiter is not None:
            with self._step():
                found = self._targets.check(identity, min_ttl=watched.min_ttl)
            if not found:
                self._rate_limiter.acquire()
                if self._stopping.is_set():
                    return None
        with self._step():
            cautious = turn is Turn.PROBE or self._gate.cautious
            return self._targets.ensure(identity, min_ttl=watched.min_ttl, cautious=cautious)

    def _noted(self, watched: _Watched, outcome: Outcome) -> float:
        """Count it; seconds until it is to be renewed."""
        grant = outcome.grant
        token = grant.access.token
        left = grant.access.left(grant.now)
        # What has just been minted is new, whenever it was issued: else an old one would be followed by another at once.
        issued_at = None if outcome.result == "minted" else token.issued_at
        life = token.expires_at - issued_at if issued_at else left
        watched.min_ttl = life * LATEST
        with self._changed:
            at, end = grant.now + left, time.monotonic() + left
            self._stats.ends[watched.entry.identity] = Expiry(watched.entry, at, end)
            self._stats.mints += outcome.result == "minted"
            self._stats.waits += grant.waited
        share, spread = LEFT
        return max(0.0, left - life * share * random.uniform(1 - spread, 1 + spread))  # noqa: S311  no secret

    def _succeeded(self, watched: _Watched) -> None:
        watched.pauses = full_jitter(*RETRY)
        with self._changed:
            if watched.entry.identity in self._failing:
                self._failing.discard(watched.entry.identity)
                if not self._failing:
                    _log.warning("all tokens can be renewed again")

    def _failed(self, watched: _Watched, exc: KlearstackVaultError) -> float:
        with self._changed:
            self._stats.failures[exc.code] += 1
            if not self._failing:  # an outage is told once, not for each token
                _log.warning("line %d: %s Trying again", watched.entry.line, exc.line)
            self._failing.add(watched.entry.identity)
        _log.info("line %d: %s", watched.entry.line, exc)
        return next(watched.pauses) + (MISMATCH_RETRY if isinstance(exc, UserMismatchError) else 0.0)

    def _write(self, path: Path, token: Token) -> None:
        text = token.value.reveal()
        if holds(path, text, self._files):
            return
        with suppress(OSError):  # write_file tells what is wrong
            make_folders(path.parent, self._files)
        write_file(path, text, mode=self._files.mode, owner=self._files.owner)
        if self._on_change is not None:
            self._on_change.call()


class Hook:
    """A command that runs after token files have changed: one run at a time, and one for all that changed meanwhile.

    Raises UsageError if it is none.
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError:  # a quote without an end
            self._command = []
        if not self._command:
            raise UsageError("--on-change takes a command, quoted as for a shell.")
        try:
            children.program(self._command[0])
        except OSError as exc:
            raise UsageError(f"--on-change names no command that can be run ({exc.strerror}).") from None
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False: the end
        self._worker = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(False)
        self._worker.join(GRACE)

    def call(self) -> None:
        """Have it run soon."""
        self._calls.put(True)

    def _work(self) -> None:
        going_on = True
        while going_on:
            calls = [self._calls.get()]
            while not self._calls.empty():
                calls.append(self._calls.get())
            going_on = all(calls)
            if any(calls):
                self._run()

    def _run(self) -> None:
        try:
            code = children.run(self._command, without_credentials(os.environ), HOOK_WITHIN)
        except (OSError, subprocess.TimeoutExpired) as exc:
            _log.warning("the command after a change did not run to its end (%s)", type(exc).__name__)
        else:
            if code:
                _log.warning("the command after a change ended with exit code %d", code)
