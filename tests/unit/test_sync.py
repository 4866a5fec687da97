"""A whole manifest at once: what is counted and told, and how a run comes to an end."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from support.fakes import NOW, Slots, token

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.bulk import step, sync
from vault_plugin.bulk.circuit_breaker import CircuitBreaker, Permit
from vault_plugin.bulk.report import SyncResult
from vault_plugin.bulk.sync import Sync
from vault_plugin.bulk.targets import EnsureResult
from vault_plugin.errors import (
    KlearstackVaultError,
    SettingsError,
    SourceBusyError,
    SourceError,
    SourceRefusedError,
    StoreBusyError,
    StoreError,
    StoreRefusedError,
    WriteError,
)
from vault_plugin.manifest.entries import Entry
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

PATIENCE = 30  # seconds that a real wait may take before the test has failed


def entry(number: int) -> Entry:
    return Entry(number + 1, Identity(str(number), "Acme"), None)


def entries(count: int) -> Iterator[Entry]:
    return map(entry, range(count))


def outcome(result: Literal["fresh", "minted", "copied"], life: int = 900) -> EnsureResult:
    held = {Kind.ACCESS: GrantedToken(token(life=life), VaultRef("secret", "p", 1))}
    return EnsureResult(
        result, Grant(held, "endpoint" if result == "minted" else "vault", stale=False, now=NOW)
    )


class FakeTargets(Slots):
    """Vaults in which a user's token is as its number says; what was asked of them."""

    deadline = 60.0

    def __init__(self, becomes: Callable[[int], EnsureResult] = lambda _: outcome("minted")) -> None:
        self.becomes = becomes
        self.are_several = False
        self.down = False  # one of them, so that not all can be looked at
        self.fresh: set[int] = set()
        self.asked: list[tuple[str, int]] = []

    def check(
        self, identity: Identity, *, min_ttl: float | None = None, repair: bool = False
    ) -> EnsureResult | None:
        number = int(identity.user_id)
        self.asked.append(("check", number))
        if self.down:
            raise StoreError("down")
        return outcome("fresh", 800) if number in self.fresh else None

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False, renew: bool = False
    ) -> EnsureResult:
        number = int(identity.user_id)
        self.asked.append(("ensure", number))
        return self.becomes(number)


class Run:
    """A run over fake targets, and what it told."""

    def __init__(self, targets: FakeTargets | None = None, **how: Any) -> None:
        self.targets = targets or FakeTargets()
        self.told: list[SyncResult] = []
        self.sync = Sync(self.targets, self.told.append, **{"concurrency": 1} | how)  # type: ignore[arg-type]

    def over(self, count: int) -> "Run":
        self.sync.run(entries(count))
        return self

    @property
    def results(self) -> list[tuple[int, str]]:
        return sorted((int(done.entry.identity.user_id), done.result) for done in self.told)


def failing(*numbers: int, exc: Exception | None = None) -> FakeTargets:
    def becomes(number: int) -> EnsureResult:
        if number in numbers:
            raise exc or SourceRefusedError("No.", hint="Ask.")
        return outcome("minted")

    return FakeTargets(becomes)


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_each_entry_is_done_told_and_counted_once(concurrency: int) -> None:
    run = Run(
        FakeTargets(lambda number: outcome(("fresh", "minted", "copied")[number % 3])),
        concurrency=concurrency,
    )
    run.over(300)
    assert [number for number, _ in run.results] == list(range(300))
    assert sorted(run.targets.asked) == sorted(("ensure", number) for number in range(300))
    assert run.sync.counts == {"fresh": 100, "minted": 100, "copied": 100}
    assert run.sync.stopped_by == ""


def test_nothing_to_do_is_done() -> None:
    run = Run(concurrency=4).over(0)
    assert (run.told, run.sync.counts.total(), run.sync.stopped_by) == ([], 0, "")


def test_a_failure_is_that_of_one_identity() -> None:
    run = Run(failing(1)).over(3)
    assert run.results == [(0, "minted"), (1, "failed"), (2, "minted")]
    assert run.sync.counts == {"minted": 2, "failed": 1}
    assert [str(done.error) for done in run.told if done.error] == ["No."]


def test_a_bug_is_that_of_one_identity_and_quotes_nothing() -> None:
    run = Run(failing(1, exc=ValueError("CANARY"))).over(3)
    assert run.sync.counts == {"minted": 2, "failed": 1}
    (error,) = [done.error for done in run.told if done.error]
    assert error.code == "internal"
    assert "Internal error: ValueError at " in str(error)
    assert "CANARY" not in str(error)


def test_so_many_at_a_time_and_no_more() -> None:
    barrier = threading.Barrier(5)
    inside: list[int] = []
    crowds: list[int] = []

    def becomes(number: int) -> EnsureResult:
        inside.append(number)
        crowds.append(len(inside))
        barrier.wait(PATIENCE)  # breaks unless five are in here together
        inside.remove(number)
        return outcome("minted")

    run = Run(FakeTargets(becomes), concurrency=5).over(20)
    assert run.sync.counts == {"minted": 20}
    assert max(crowds) == 5


def test_one_at_a_time_is_told() -> None:
    talking = threading.Lock()

    def tell(done: SyncResult) -> None:
        assert talking.acquire(blocking=False), "two spoke at the same time"
        threading.Event().wait(0.001)
        talking.release()

    one = Sync(FakeTargets(), tell, concurrency=16)  # type: ignore[arg-type]
    one.run(entries(100))
    assert one.counts == {"minted": 100}


# Ends


def test_so_many_failures_in_a_row_stop_the_run() -> None:
    run = Run(failing(*range(3, 100)), stop_after=4).over(100)
    assert run.sync.counts == {"minted": 3, "failed": 4}
    assert run.sync.stopped_by == "4 consecutive failures"
    assert len(run.targets.asked) == 7


def test_a_success_in_between_lets_it_go_on() -> None:
    run = Run(failing(*(number for number in range(20) if number % 4)), stop_after=4).over(20)
    assert run.sync.counts == {"minted": 5, "failed": 15}
    assert run.sync.stopped_by == ""


def test_with_a_bound_of_0_it_goes_on_for_ever() -> None:
    run = Run(failing(*range(50)), stop_after=0).over(50)
    assert run.sync.counts == {"failed": 50}
    assert run.sync.stopped_by == ""


def test_who_stops_it_is_remembered_and_nothing_more_is_begun() -> None:
    def becomes(number: int) -> EnsureResult:
        if number == 2:
            run.sync.stop("SIGTERM")
            run.sync.stop("SIGINT")
            assert run.sync._stopping.wait(PATIENCE)
        return outcome("minted")

    run = Run(FakeTargets(becomes))
    run.over(100)
    assert run.sync.stopped_by == "SIGTERM"
    assert run.results == [(0, "minted"), (1, "minted"), (2, "minted")]  # what was in flight could finish


def test_a_deadline_stops_it() -> None:
    left = itertools.chain([0.5] * 3, itertools.repeat(0.0))

    class Passing(Deadline):
        def left(self) -> float:
            return next(left)

    def becomes(number: int) -> EnsureResult:
        if number == 1:
            assert run.sync._stopping.wait(PATIENCE)
        return outcome("minted")

    run = Run(FakeTargets(becomes), deadline=Passing(7))
    run.over(100)
    assert run.sync.stopped_by == "the deadline has passed"
    assert run.sync.counts == {"minted": 2}


def test_a_deadline_that_does_not_pass_stops_nothing() -> None:
    run = Run(deadline=Deadline(600.0)).over(20)
    assert (run.sync.counts, run.sync.stopped_by) == ({"minted": 20}, "")


def test_what_is_in_flight_after_the_grace_has_failed_once_and_is_not_heard_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "GRACE", 0.01)
    released, left = threading.Event(), threading.Semaphore(0)
    late: list[threading.Thread] = []

    def becomes(number: int) -> EnsureResult:
        if number == 0:
            return outcome("minted")
        late.append(threading.current_thread())
        left.release()
        assert released.wait(PATIENCE)
        return outcome("minted")

    run = Run(FakeTargets(becomes), concurrency=2)

    def endless() -> Iterator[Entry]:
        yield from entries(3)
        raise AssertionError("more was begun")

    def stop() -> None:
        for _ in range(2):
            left.acquire(timeout=PATIENCE)
        run.sync.stop("SIGTERM")

    stopper = threading.Thread(target=stop)
    stopper.start()
    run.sync.run(endless())
    stopper.join()
    assert run.results == [(0, "minted"), (1, "failed"), (2, "failed")]
    errors = [done.error for done in run.told if done.error]
    assert [(error.code, error.retryable) for error in errors] == [("busy", True)] * 2
    released.set()
    for thread in late:
        thread.join(PATIENCE)
    assert len(run.told) == 3
    assert run.sync.counts == {"minted": 1, "failed": 2}


def test_entries_that_fail_end_the_run_and_are_nobodys_failure() -> None:
    def changed() -> Iterator[Entry]:
        yield from entries(2)
        raise SettingsError("The manifest was changed.")

    run = Run(concurrency=4)
    with pytest.raises(SettingsError, match="was changed"):
        run.sync.run(changed())
    assert run.sync.counts == {"minted": 2}


def test_a_report_that_cannot_be_written_ends_the_run() -> None:
    told: list[SyncResult] = []

    def tell(done: SyncResult) -> None:
        told.append(done)
        if len(told) == 3:
            raise WriteError("The disk is full.")

    targets = FakeTargets()
    with pytest.raises(WriteError, match="disk is full"):
        Sync(targets, tell, concurrency=1).run(entries(1000))  # type: ignore[arg-type]
    assert len(told) == len(targets.asked) == 3


def test_when_nothing_can_be_told_any_more_no_other_thread_begins_anything() -> None:
    def becomes(number: int) -> EnsureResult:
        if number:
            assert one._stopping.wait(PATIENCE)
        return outcome("minted")

    def tell(done: SyncResult) -> None:
        raise WriteError("The disk is full.")

    targets = FakeTargets(becomes)
    one = Sync(targets, tell, concurrency=2)  # type: ignore[arg-type]
    with pytest.raises(WriteError):
        one.run(entries(5))
    assert one._stopping.is_set()
    assert len(targets.asked) <= 2


# Rate, and check


class CountingRateLimiter:
    """A rate limiter that takes no time, and what it did."""

    made: list["CountingRateLimiter"]

    def __init__(self, rate: float, sleep: Callable[[float], object]) -> None:
        self.rate = rate
        self.sleep = sleep
        self.waits = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.made.append(self)

    def acquire(self) -> None:
        self.waits += 1
        self.meanwhile()


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> list[CountingRateLimiter]:
    CountingRateLimiter.made = []
    monkeypatch.setattr(step, "RateLimiter", CountingRateLimiter)
    return CountingRateLimiter.made


def test_with_a_rate_a_good_token_waits_for_nobody_and_any_other_waits_before_the_lock(
    paces: list[CountingRateLimiter],
) -> None:
    run = Run(rate=5.0)
    run.targets.fresh = {0, 2}
    run.over(4)
    (pace,) = paces
    assert (pace.rate, pace.waits) == (5.0, 2)
    assert run.targets.asked == [
        ("check", 0),
        ("check", 1),
        ("ensure", 1),
        ("check", 2),
        ("check", 3),
        ("ensure", 3),
    ]
    assert run.results == [(0, "fresh"), (1, "minted"), (2, "fresh"), (3, "minted")]
    assert run.told[0].expires_at == NOW + 800


def test_with_a_rate_one_vault_that_is_down_does_not_keep_the_others_from_getting_the_token(
    paces: list[CountingRateLimiter],
) -> None:
    run = Run(rate=5.0)
    run.targets.down = run.targets.are_several = True
    run.over(1)
    assert (run.targets.asked, paces[0].waits) == ([("check", 0), ("ensure", 0)], 1)
    run = Run(rate=5.0, breaker=quick(1), stop_after=1)
    run.targets.down = True
    run.over(1)
    assert (set(run.targets.asked), run.sync.counts, paces[1].waits) == ({("check", 0)}, {"failed": 1}, 0)


def test_without_a_rate_there_is_no_pace_and_one_request_less(paces: list[CountingRateLimiter]) -> None:
    run = Run().over(2)
    assert (paces, run.targets.asked) == ([], [("ensure", 0), ("ensure", 1)])


def test_whoever_waits_for_the_pace_when_the_run_is_stopped_mints_no_more(
    paces: list[CountingRateLimiter],
) -> None:
    run = Run(rate=1.0)

    def stopped() -> None:
        run.sync.stop("SIGTERM")
        assert run.sync._stopping.wait(PATIENCE)

    paces[0].meanwhile = stopped
    run.over(5)
    assert run.targets.asked == [("check", 0)]
    assert (run.told, run.sync.counts.total()) == ([], 0)  # it is left for another run


def test_a_wait_for_the_pace_ends_with_the_run(paces: list[CountingRateLimiter]) -> None:
    run = Run(rate=0.001)
    run.sync._stopping.set()
    paces[0].sleep(PATIENCE * 1000)  # returns


def test_a_real_pace_is_kept() -> None:
    assert Run(rate=1e6, concurrency=4).over(50).sync.counts == {"minted": 50}


@pytest.mark.parametrize("rate", [None, 1.0])
def test_a_check_only_reads_and_says_what_would_be_minted(
    rate: float | None, paces: list[CountingRateLimiter]
) -> None:
    run = Run(check=True, rate=rate)
    run.targets.fresh = {1}
    run.over(3)
    assert run.targets.asked == [("check", 0), ("check", 1), ("check", 2)]
    assert run.results == [(0, "would_mint"), (1, "fresh"), (2, "would_mint")]
    assert run.sync.counts == {"would_mint": 2, "fresh": 1}
    assert not any(pace.waits for pace in paces)


# Reports


def test_what_became_of_an_identity_is_told_without_its_token() -> None:
    run = Run().over(1)
    assert run.told[0].describe() == {
        "line": 1,
        "company_name": "Acme",
        "user_id": "0",
        "result": "minted",
        "expires_at": "2026-09-21T14:28:20Z",
    }


def test_a_failure_is_told_with_its_error() -> None:
    run = Run(failing(0, exc=StoreBusyError("Too many.", hint="Wait."))).over(1)
    assert run.told[0].describe() == {
        "line": 1,
        "company_name": "Acme",
        "user_id": "0",
        "result": "failed",
        "error": {"code": "vault_busy", "message": "Too many.", "hint": "Wait.", "retryable": True},
    }


def test_what_would_be_minted_has_no_end_yet() -> None:
    assert "expires_at" not in Run(check=True).over(1).told[0].describe()


def test_an_error_is_one_of_ours() -> None:
    assert all(isinstance(done.error, KlearstackVaultError) for done in Run(failing(0)).over(1).told)


def test_whoever_waits_for_vault_when_the_run_is_stopped_is_left_for_another_run() -> None:
    class Full(FakeTargets):
        @contextmanager
        def slot(self, stopping: threading.Event) -> Iterator[bool]:
            run.sync.stop("SIGTERM")
            yield not stopping.wait(PATIENCE)

    run = Run(Full())
    run.over(3)
    assert (run.told, run.targets.asked, run.sync.counts.total()) == ([], [], 0)


# Outages


def quick(stop_after: int = 0) -> CircuitBreaker:
    """A breaker whose probes are due at once."""
    return CircuitBreaker(stop_after, workers=1, uniform=lambda *_: 0.0)


def test_an_outage_that_ends_leaves_nobody_out() -> None:
    failures = itertools.chain([True] * 8, itertools.repeat(False))

    def becomes(number: int) -> EnsureResult:
        if next(failures):
            raise SourceError("down")
        return outcome("minted")

    run = Run(FakeTargets(becomes), breaker=quick()).over(20)
    assert run.sync.counts == {"minted": 20}
    assert (run.sync.waited, run.sync.stopped_by) == (0, "")


def test_an_outage_that_lasts_is_one_failure_of_all_that_wait() -> None:
    run = Run(failing(*range(20), exc=SourceError("down")), breaker=quick(4), stop_after=4)
    run.over(20)
    assert run.sync.counts["failed"] == run.sync.waited == 3
    assert run.sync.stopped_by == "the outage did not end"
    assert all(done.outage for done in run.told if done.error)


def test_who_alone_fails_twice_has_failed() -> None:
    run = Run(failing(3, exc=SourceError("down")), breaker=quick()).over(20)
    assert run.sync.counts == {"minted": 19, "failed": 1}
    assert not any(done.outage for done in run.told)


@pytest.mark.parametrize("exc", [StoreRefusedError("policy"), ZeroDivisionError()])
def test_a_look_that_fails_while_mints_pause_is_a_failure_of_its_own(exc: Exception) -> None:
    class Unreadable(FakeTargets):
        def check(self, *_: Any, **__: Any) -> EnsureResult | None:
            raise exc

    breaker = CircuitBreaker(2, workers=1)
    assert breaker.acquire() is Permit.MINT
    breaker.record(Permit.MINT, SourceBusyError("busy"))
    run = Run(Unreadable(), breaker=breaker).over(3)
    assert run.sync.counts["failed"] >= 1


def test_a_token_that_needs_no_mint_is_found_while_mints_pause() -> None:
    breaker = CircuitBreaker(2, workers=1)
    assert breaker.acquire() is Permit.MINT
    breaker.record(Permit.MINT, SourceBusyError("busy"))
    targets = FakeTargets()
    targets.fresh = {0, 1, 2}
    run = Run(targets, breaker=breaker).over(3)
    assert run.sync.counts["fresh"] >= 1


@pytest.mark.parametrize("exc", [None, StoreError("down")])
def test_who_may_only_read_waits_on_if_that_finds_no_token(exc: Exception | None) -> None:
    class Unreadable(FakeTargets):
        def check(self, *_: Any, **__: Any) -> EnsureResult | None:
            if exc:
                raise exc
            return None

    one = sync._Pending(entry(0))
    assert Run(Unreadable()).sync._process(one, Permit.READ) == (None, one)


def test_while_all_wait_none_is_chosen() -> None:
    left = entries(1)
    assert Run().sync._choose(left, Permit.NONE) is None
    assert next(left) == entry(0)


@pytest.mark.parametrize(("check", "permit"), [(True, Permit.MINT), (False, Permit.READ)])
def test_whoever_takes_no_place_at_the_gate_gives_none_back(
    check: bool, permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(check=check)
    monkeypatch.setattr(run.sync._breaker, "release", lambda _permit: pytest.fail("released"))
    run.sync._release(permit)


def test_renew_looks_for_no_valid_token() -> None:
    run = Run(concurrency=1, renew=True, rate=1e6)
    run.targets.fresh = {0, 1}
    run.over(2)
    assert run.targets.asked == [("ensure", 0), ("ensure", 1)]
    assert Run(renew=True, check=True).over(2).results == [(0, "would_mint"), (1, "would_mint")]
    one = sync._Pending(entry(0))
    assert Run(renew=True).sync._process(one, Permit.READ) == (None, one)
