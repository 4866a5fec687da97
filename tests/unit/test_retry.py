"""How long to go on, and how long to wait in between."""

import random
import threading
import time
from email.utils import formatdate
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FakeClock
from support.texts import ANY_TEXT

from vault_plugin.timing.backoff import MAX_RETRY_AFTER, full_jitter, retry_after
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import RateLimiter


def test_a_deadline_counts_down_to_zero_and_stays_there() -> None:
    clock = FakeClock(100.0)
    deadline = Deadline(10, clock.now)
    assert deadline.left() == 10
    clock.time = 104.0
    assert deadline.left() == 6
    clock.time = 110.0
    assert deadline.left() == 0
    clock.time = 1e9
    assert deadline.left() == 0


def test_half_a_deadline_leaves_the_other_half() -> None:
    clock = FakeClock(0.0)
    whole = Deadline(10, clock.now)
    clock.time = 2.0
    half = whole.half()
    assert half.left() == 4
    clock.time = 6.0
    assert (half.left(), whole.left()) == (0, 4)


def test_half_of_what_has_passed_has_passed() -> None:
    clock = FakeClock(0.0)
    whole = Deadline(1, clock.now)
    clock.time = 5.0
    assert whole.half().left() == 0


def test_a_deadline_goes_by_a_real_clock_unless_told_otherwise() -> None:
    assert 59 < Deadline(60).left() <= 60


def test_what_is_derived_from_a_deadline_began_with_it() -> None:
    clock = FakeClock(100.0)
    whole = Deadline(10, clock.now)
    clock.time = 104.0
    for derived in (whole.half(), whole.part(0.75), whole.patient(1), whole.half().half().patient(0)):
        assert derived.began == 100
    assert whole.part(0.75).left() == 4.5


def test_patience_ends_repetitions_and_nothing_else() -> None:
    clock = FakeClock(0.0)
    deadline = Deadline(10, clock.now)
    assert (deadline.permits(9.9), deadline.permits(10)) == (True, False)
    patient = deadline.patient(3)
    clock.time = 2.0
    assert (patient.permits(0.9), patient.permits(1), patient.left()) == (True, False, 8)
    # The shorter patience counts, also for what is derived from it.
    for derived in (patient.patient(100), patient.half(), patient.part(1)):
        assert (derived.permits(0.9), derived.permits(1)) == (True, False)
    assert not patient.patient(0).permits(0)


def test_the_bound_of_a_pause_doubles_up_to_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def longest(low: float, high: float) -> float:
        drawn.append(low)
        return high

    monkeypatch.setattr(random, "uniform", longest)
    assert list(islice(full_jitter(0.5, 3.0), 6)) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert drawn == [0] * 6  # full jitter: each pause may be as short as none


@given(st.floats(0.001, 10), st.floats(10, 100))
def test_pauses_stay_within_their_bounds(base: float, cap: float) -> None:
    for count, pause in enumerate(islice(full_jitter(base, cap), 10)):
        assert 0 <= pause <= min(cap, base * 2**count)


def test_callers_that_failed_together_do_not_return_together() -> None:
    assert len({next(full_jitter(1.0, 1.0)) for _ in range(20)}) > 1


@pytest.mark.parametrize(("header", "seconds"), [("0", 0), ("1", 1), ("120", 120), ("007", 7)])
def test_retry_after_is_read_in_seconds(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_any_other_retry_after_asks_for_no_pause() -> None:
    for header in (None, "", " ", "-1", "1.5", "1e9", "nan", "inf", "0x10", "\u00b2", "\u0663", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"):  # fmt: skip
        assert retry_after(header) == 0, header


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def test_retry_after_as_a_date_counts_from_the_servers_own() -> None:
    for header, seconds in (
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:29:00 -0000", 60),
        ("Wednesday, 21-Oct-26 07:28:05 GMT", 5),
        (DATE, 0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0),
        ("Wed, 99 Oct 2026 07:27:00 GMT", 0),
    ):
        assert retry_after(header, DATE) == seconds, header


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_without_a_date_of_the_server_it_counts_from_ours(date: str | None) -> None:
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True), date) <= 60


def test_a_retry_after_of_years_is_obeyed_for_an_hour() -> None:
    for header in (
        "3601",
        "1792567680",  # Unix seconds
        "1792567680000",  # the same in milliseconds
        "9" * 400,
        "Wed, 21 Oct 2026 08:28:01 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ):
        assert retry_after(header, DATE) == MAX_RETRY_AFTER == 3600, header


@given(ANY_TEXT | st.text("0123456789", min_size=1, max_size=500))
def test_no_retry_after_crashes_is_negative_or_too_long(header: str) -> None:
    assert 0 <= retry_after(header) <= MAX_RETRY_AFTER


def begun(pace: RateLimiter, clock: FakeClock, count: int) -> list[float]:
    """When each of so many begins, if nothing else takes time."""
    times = []
    for _ in range(count):
        pace.acquire()
        times.append(clock.time)
    return times


def test_a_pace_lets_the_first_go_at_once_and_spaces_the_others_evenly() -> None:
    clock = FakeClock(100.0)
    assert begun(RateLimiter(4, clock.sleep, clock.now), clock, 5) == [100.0, 100.25, 100.5, 100.75, 101.0]


def test_a_rate_may_be_less_than_one_a_second() -> None:
    clock = FakeClock(0.0)
    assert begun(RateLimiter(0.1, clock.sleep, clock.now), clock, 3) == [0.0, 10.0, 20.0]


def test_what_takes_longer_than_the_pace_does_not_wait_and_saves_nothing_up() -> None:
    clock = FakeClock(0.0)
    pace = RateLimiter(1, clock.sleep, clock.now)
    pace.acquire()
    clock.time = 100.0
    assert begun(pace, clock, 3) == [100.0, 101.0, 102.0]
    assert clock.slept[1] == 0


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_no_second_sees_more_than_the_rate(rate: float, works: list[float]) -> None:
    clock = FakeClock(0.0)
    pace = RateLimiter(rate, clock.sleep, clock.now)
    times = []
    for work in works:
        pace.acquire()
        times.append(clock.time)
        clock.time += work
    for earlier, later in pairwise(times):
        assert later - earlier >= 1 / rate * (1 - 1e-9) - 1e-9


def test_all_threads_share_one_pace_and_nobody_waits_for_one_who_sleeps() -> None:
    clock = FakeClock(0.0)
    asked: list[float] = []
    barrier = threading.Barrier(8)

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        barrier.wait(30)  # all sleep at the same time, or this breaks

    pace = RateLimiter(2, sleep, clock.now)
    threads = [threading.Thread(target=pace.acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]


def test_a_pace_goes_by_a_real_clock_unless_told_otherwise() -> None:
    RateLimiter(1e6).acquire()
