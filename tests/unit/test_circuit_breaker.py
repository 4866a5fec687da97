"""When mints pause, who may try meanwhile, and when a pause ends."""

import math
from collections.abc import Callable

import pytest
from support.fakes import FakeClock

from vault_plugin.bulk.circuit_breaker import CAUTIOUS_MINTS, MAX_OPEN, CircuitBreaker, Permit
from vault_plugin.bulk.probes import LIMIT_DELAY, LIMIT_SHARE, MINUTE, PROBE_DELAY
from vault_plugin.bulk.scope import Scope, scope_of
from vault_plugin.errors import (
    ForeignSecretError,
    KlearstackVaultError,
    MountMissingError,
    SourceBusyError,
    SourceError,
    SourceRefusedError,
    SourceSettingsError,
    StoreBusyError,
    StoreError,
    StoreRefusedError,
)

DOWN = SourceError("down")
VAULT = StoreError("down")


def busy(seconds: float = 0.0) -> SourceBusyError:
    exc = SourceBusyError("busy")
    exc.retry_after = seconds
    return exc


def unknown_token() -> StoreRefusedError:
    exc = StoreRefusedError("who?")
    exc.for_all = True
    return exc


def elsewhere() -> StoreError:
    exc = StoreError("one of two is down")
    exc.for_all = False
    return exc


class Gated:
    """A breaker with a clock that goes when told, and no drawing."""

    def __init__(self, stop_after: int = 0, workers: int = 16) -> None:
        self.clock = FakeClock(0.0)
        self.breaker = CircuitBreaker(
            stop_after, workers=workers, monotonic=self.clock.now, uniform=lambda _, most: most
        )

    def mint(self, exc: KlearstackVaultError | None = None, before: int | None = None) -> bool:
        permit = self.breaker.acquire()
        assert permit is Permit.MINT
        return self.breaker.record(permit, exc, minted=exc is None, before=before)

    def probe(self, exc: KlearstackVaultError | None = None, *, minted: bool = True) -> float:
        """Wait until the next probe is due; how long that took."""
        waited = self.breaker.probe_in
        self.clock.sleep(waited)
        permit = self.breaker.acquire()
        assert permit is Permit.PROBE
        self.breaker.record(permit, exc, minted=minted and exc is None)
        return waited

    def paused(self, exc: KlearstackVaultError = DOWN) -> "Gated":
        self.mint()
        for _ in range(3):
            if self.breaker.error is None:
                assert self.mint(exc)
        assert self.breaker.error is exc
        return self


def test_an_error_concerns_one_identity_or_all() -> None:
    for exc, scope in (
        (DOWN, Scope.ENDPOINT),
        (busy(), Scope.RATE_LIMIT),
        (SourceSettingsError("certificate"), Scope.IDENTITY),
        (SourceRefusedError("no"), Scope.IDENTITY),
        (VAULT, Scope.VAULT),
        (unknown_token(), Scope.VAULT),
        (MountMissingError("gone"), Scope.VAULT),
        (StoreRefusedError("policy"), Scope.IDENTITY),
        (StoreBusyError("quota"), Scope.IDENTITY),
        (ForeignSecretError("theirs"), Scope.IDENTITY),
        (elsewhere(), Scope.IDENTITY),
        (KlearstackVaultError("bug"), Scope.IDENTITY),
    ):
        assert scope_of(exc) is scope, exc


def test_three_failures_in_a_row_pause_the_mints_and_probes_are_5_s_apart_at_most() -> None:
    one = Gated().paused()
    assert one.breaker.acquire() is Permit.READ
    assert [one.probe(DOWN) for _ in range(5)] == [1, 2, 4, 5, 5]
    one.probe()
    assert (one.breaker.error, one.breaker.probe_in, one.breaker.acquire()) == (None, 0.0, Permit.MINT)


def test_a_success_in_between_prevents_a_pause() -> None:
    one = Gated()
    for _ in range(5):
        assert one.mint(DOWN)
        assert one.mint(DOWN)
        one.mint()
    assert one.breaker.error is None


def test_one_probe_at_a_time_and_a_bound_of_fewer_failures() -> None:
    one = Gated(stop_after=1)
    assert one.mint(DOWN)
    assert one.breaker.error is DOWN
    one.clock.sleep(PROBE_DELAY[0])
    assert [one.breaker.acquire() for _ in range(2)] == [Permit.PROBE, Permit.READ]
    one.breaker.release(Permit.PROBE)
    assert one.breaker.acquire() is Permit.PROBE
    one.breaker.record(Permit.PROBE, DOWN)
    assert one.breaker.given_up


def test_whoever_fails_again_after_others_succeeded_fails_by_itself() -> None:
    one = Gated()
    assert one.mint(DOWN)
    one.mint()
    assert not one.mint(DOWN, before=0)


def test_without_a_bound_a_pause_ends_after_5_minutes() -> None:
    one = Gated().paused()
    while not one.breaker.given_up:
        one.probe(DOWN)
    assert MAX_OPEN <= one.clock.time < MAX_OPEN + PROBE_DELAY[1]


def test_a_limit_is_waited_for_as_long_as_told_by_all() -> None:
    one = Gated(stop_after=1)
    in_flight = [one.breaker.acquire() for _ in range(3)]
    assert one.breaker.record(in_flight[0], busy(60))
    assert one.breaker.record(in_flight[1], busy(70))
    one.breaker.record(in_flight[2], None, minted=True)  # it began before
    assert one.breaker.probe_in == 70
    assert one.probe(busy(600)) == 70
    assert one.probe(busy(600)) == 600.5
    assert not one.breaker.given_up
    one.probe()
    assert one.breaker.error is None


def test_a_limit_that_is_not_told_is_waited_for_longer_than_a_minute_and_remembered() -> None:
    one = Gated()
    one.mint(busy())
    assert [one.probe(busy()) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 64, LIMIT_DELAY[1]]
    one = Gated()
    one.mint(busy())
    while one.clock.time < 60:
        one.probe(busy() if one.clock.time + one.breaker.probe_in < 60 else None)
    one.mint(busy())
    assert one.breaker.probe_in == pytest.approx(LIMIT_SHARE * 63)
    one.probe(busy())
    assert one.breaker.probe_in == pytest.approx(LIMIT_SHARE * 63 / 8)


def test_after_a_pause_the_number_of_mints_at_a_time_doubles() -> None:
    one = Gated().paused()
    one.probe()
    for room in (2, 4, 8):
        permits = [one.breaker.acquire() for _ in range(room + 1)]
        assert permits == [Permit.MINT] * room + [Permit.READ]
        for permit in permits[:-1]:
            one.breaker.record(permit, None, minted=True)
    for _ in range(2**10):
        one.mint()
    assert {one.breaker.acquire() for _ in range(3000)} == {Permit.MINT}


@pytest.mark.parametrize("exc", [VAULT, unknown_token(), MountMissingError("gone")])
def test_vault_pauses_at_once_and_nobody_asks_it_meanwhile(exc: StoreError) -> None:
    one = Gated(stop_after=3).paused(exc)
    assert one.breaker.acquire() is Permit.NONE
    assert one.breaker.cautious
    one.probe(minted=False)  # a token that can be read says that Vault is back
    assert one.breaker.error is None
    for _ in range(CAUTIOUS_MINTS):
        assert one.breaker.cautious
        one.mint()
    assert not one.breaker.cautious


@pytest.mark.parametrize("exc", [unknown_token(), MountMissingError("never there")])
def test_what_never_worked_is_no_outage(exc: StoreError) -> None:
    one = Gated()
    assert not one.mint(exc)
    assert one.breaker.error is None


def test_a_stored_token_says_nothing_of_the_endpoint_and_a_refusal_does() -> None:
    one = Gated().paused()
    one.probe(minted=False)
    assert one.breaker.error is DOWN
    one.probe(StoreRefusedError("policy"))
    assert one.breaker.error is DOWN
    one.probe(SourceRefusedError("no"))
    assert one.breaker.error is None


def test_an_outage_may_become_another() -> None:
    one = Gated().paused()
    one.probe(VAULT)
    assert (one.breaker.error, one.breaker.acquire()) == (VAULT, Permit.NONE)
    one.probe(busy(9))
    assert (one.breaker.probe_in, one.breaker.acquire()) == (9.5, Permit.READ)


class Limited:
    """Workers that mint, each for itself, at an endpoint that names no time in its 429; a request takes 0.1 s.

    Moments at which it refused are noted. What `accepts` decides is asked at the end of a request.
    """

    def __init__(self, workers: int, accepts: Callable[[float], bool]) -> None:
        self.clock = FakeClock(0.0)
        self.breaker = CircuitBreaker(workers=workers, monotonic=self.clock.now, uniform=lambda _, most: most)
        self.workers, self.accepts = workers, accepts
        self.minted, self.refused = 0, list[float]()

    def run(self, identities: int, seconds: float) -> "Limited":
        while self.minted < identities and self.clock.time < seconds:
            permits: list[Permit] = []
            room = min(self.workers, identities - self.minted)
            while len(permits) < room and (permit := self.breaker.acquire()) in (Permit.MINT, Permit.PROBE):
                permits.append(permit)
            self.clock.sleep(0.1 if permits else max(self.breaker.probe_in, 0.01))
            for permit in permits:
                accepted = self.accepts(self.clock.time)
                self.minted += accepted
                if not accepted:
                    self.refused.append(self.clock.time)
                self.breaker.record(permit, None if accepted else busy(), minted=accepted)
        return self

    @property
    def most_in_a_minute(self) -> int:
        """Refused requests in any minute."""
        return max(sum(begin <= at < begin + MINUTE for at in self.refused) for begin in self.refused)


def windows(size: int, seconds: float) -> Callable[[float], bool]:
    """A limit of so many requests in each window, which begins with its first request."""
    begun, taken = -math.inf, 0

    def accepts(now: float) -> bool:
        nonlocal begun, taken
        if now >= begun + seconds:
            begun, taken = now, 0
        taken += 1
        return taken <= size

    return accepts


WORKERS = (1, 2, 3, 4, 6, 16)


@pytest.mark.parametrize("workers", WORKERS)
def test_each_worker_is_refused_once_in_any_minute_of_a_limit(workers: int) -> None:
    one = Limited(workers, lambda now: now > 275).run(workers + 100, 400)
    assert one.minted == workers + 100
    assert one.most_in_a_minute <= workers
    assert len(one.refused) >= workers


@pytest.mark.parametrize("workers", WORKERS)
def test_25_at_10_a_minute_take_as_long_as_the_limit_allows(workers: int) -> None:
    one = Limited(workers, windows(10, 60)).run(25, 1000)
    assert 120 <= one.clock.time < 140
    assert one.most_in_a_minute <= workers


@pytest.mark.parametrize("workers", WORKERS)
def test_in_the_long_run_most_of_the_windows_of_a_limit_are_used(workers: int) -> None:
    one = Limited(workers, windows(10, 60)).run(500, 10_000)
    assert 49 * 60 <= one.clock.time < 1.15 * 49 * 60
    assert one.most_in_a_minute <= workers


@pytest.mark.parametrize("workers", WORKERS[3:])
def test_a_limit_by_the_second_does_not_cost_a_minute_each_time(workers: int) -> None:
    one = Limited(workers, windows(10, 1)).run(500, 10_000)
    assert one.clock.time < 300


def test_a_worker_whose_request_is_still_in_flight_counts_as_refused() -> None:
    one = Gated(workers=2)
    slow, quick = one.breaker.acquire(), one.breaker.acquire()
    assert one.breaker.record(quick, busy())
    assert one.breaker.probe_in == 20
    one.clock.sleep(20)
    assert one.breaker.acquire() is Permit.READ
    one.clock.sleep(5)
    assert one.breaker.record(slow, busy())
    assert one.breaker.probe_in == 35
    assert one.probe() == 35


def test_a_slow_success_leaves_the_probe_to_another_worker() -> None:
    one = Gated(workers=2)
    slow, quick = one.breaker.acquire(), one.breaker.acquire()
    assert one.breaker.record(quick, busy())
    one.clock.sleep(20)
    assert one.breaker.acquire() is Permit.READ
    one.breaker.record(slow, None, minted=True)
    assert one.probe(busy()) == 0
    assert one.breaker.probe_in == 40


def test_what_began_before_a_pause_and_failed_for_another_reason_makes_it_no_longer() -> None:
    one = Gated()
    first, second = one.breaker.acquire(), one.breaker.acquire()
    assert one.breaker.record(first, busy())
    assert one.breaker.record(second, DOWN)
    assert one.breaker.probe_in == LIMIT_DELAY[0]
