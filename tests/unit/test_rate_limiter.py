"""How fast Vault is asked once it has refused a request: rates, pauses, and identities in progress."""

import math
import threading
from contextlib import ExitStack
from itertools import pairwise
from queue import Empty, SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FakeClock

from vault_plugin.timing.rate_limiter import BACKOFF, FIRST, REQUESTS, UNLIMITED, AdaptiveRateLimiter

PATIENCE = 30  # seconds that a real wait may take before the test has failed


class Quota:
    """Vault's rate limit: so many requests in each window, from the first request on. What it is asked is noted."""

    def __init__(self, clock: FakeClock, rate: int, window: float = 1.0) -> None:
        self.clock, self.rate, self.window = clock, rate, window
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def accepts(self) -> bool:
        now = self.clock.time
        last = self.accepted[-self.rate :]
        accepts = len(last) < self.rate or last[0] // self.window != now // self.window
        (self.accepted if accepts else self.refused).append(now)
        return accepts


def limiter(clock: FakeClock) -> AdaptiveRateLimiter:
    return AdaptiveRateLimiter(clock.now, lambda low, high: (low + high) / 2)


def ask(one: AdaptiveRateLimiter, quota: Quota, seconds: float, retry_after: float = 0) -> None:
    """Send requests one after the other for so long, each of which takes a millisecond."""
    clock = quota.clock
    end = clock.time + seconds
    while (sent := max(clock.time, one.reserve())) < end:
        clock.time = sent
        clock.time += 0.001
        if quota.accepts():
            one.accept(sent)
        else:
            one.refuse(retry_after, sent)
    clock.time = end


def test_without_a_refusal_nobody_waits() -> None:
    clock = FakeClock(100.0)
    one = limiter(clock)
    for _ in range(1000):
        assert one.reserve() == 100.0
        one.accept(100.0)
    assert (one.rate, one.refusing, one.seconds_for(10**6)) == (math.inf, False, 0)


@pytest.mark.parametrize("rate", [1, 5, 10, 100])
def test_most_of_a_quota_is_used_and_few_requests_are_refused(rate: int) -> None:
    clock = FakeClock(0.0)
    quota = Quota(clock, rate)
    ask(limiter(clock), quota, 300)
    assert len(quota.accepted) >= 0.8 * rate * 300
    assert len(quota.refused) <= 0.2 * len(quota.accepted)


def test_requests_are_spaced_so_that_each_waits_about_as_long_as_the_one_before() -> None:
    clock = FakeClock(0.0)
    quota = Quota(clock, 10)
    ask(limiter(clock), quota, 100)
    gaps = sorted(later - earlier for earlier, later in pairwise(quota.accepted[50:]))
    assert gaps[len(gaps) // 2] == pytest.approx(0.12, abs=0.03)
    assert gaps[len(gaps) * 9 // 10] < 0.2


def test_a_limit_of_the_settings_is_never_exceeded_except_by_a_burst_after_a_pause() -> None:
    clock = FakeClock(100.0)
    one = limiter(clock)
    assert not one.is_limited
    one.limit(5, 3)
    assert (one.is_limited, one.rate, one.refusing) == (True, 5, False)
    assert [one.reserve() - 100 for _ in range(6)] == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6])
    assert one.seconds_for(2) == pytest.approx(1.2)  # the sixth of six took until 0.8
    clock.time = 100.4
    assert one.reserve() == pytest.approx(100.8)
    clock.time = 200.0
    assert one.seconds_for(2) == 0
    assert one.seconds_for(5) == pytest.approx(0.6)
    assert [one.reserve() - 200 for _ in range(4)] == pytest.approx([0, 0, 0, 0.2])
    for _ in range(1000):
        one.accept(clock.time)
    assert one.rate == 5


def test_vaults_quota_may_be_lower_than_the_limit_of_the_settings_which_remains_the_highest_rate() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    one.limit(10, 10)
    quota = Quota(clock, 4)
    ask(one, quota, 100)
    assert quota.refused
    assert one.rate < 6
    for limit in (10.0, 2 * UNLIMITED):
        one.limit(limit, 1)
        for _ in range(200):
            clock.time += 1
            one.accept(clock.time)
        assert (one.rate, one.refusing) == (limit, False)


def test_a_refusal_lowers_the_rate_once_whoever_else_was_refused_with_it() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    for _ in range(10):
        one.accept(0.0)
    clock.time = 0.01
    for _ in range(16):
        one.refuse(0, sent=0.0)
    assert one.rate == pytest.approx(7.0)
    one.accept(sent=0.0)  # was on its way when the others were refused
    assert one.rate == pytest.approx(7.0)
    assert one.refusing
    clock.time = 5.0
    one.refuse(0, sent=4.0)  # nothing was accepted since: the rate has nothing to do with it
    assert one.rate == pytest.approx(7.0)
    one.accept(sent=5.0)
    assert one.rate == pytest.approx(7.06)
    assert not one.refusing


def test_accepted_requests_raise_the_rate_slowly_to_the_last_limit_and_quickly_beyond() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    for _ in range(10):
        one.accept(0.0)
    one.refuse(0, 0.0)
    rates = [one.rate]
    for _ in range(100):
        clock.time += 1
        one.accept(clock.time)
        rates.append(one.rate)
    steps = [later - earlier for earlier, later in pairwise(rates)]
    slow = [step for step in steps if step == pytest.approx(0.06)]
    assert len(slow) == pytest.approx(50, abs=2)  # from 7 to 10
    assert one.rate == math.inf  # the quota is gone
    assert max(rate for rate in rates if rate < math.inf) <= UNLIMITED


def test_a_stray_refusal_is_soon_forgotten() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    one.refuse(0, 0.0)
    count = 0
    while one.rate < math.inf:
        clock.time = max(clock.time, one.reserve())
        one.accept(clock.time)
        count += 1
    assert count < 40
    assert clock.time < 3


@pytest.mark.parametrize(("retry_after", "least", "most"), [(0, 0.1, 0.2), (1, 1.1, 1.2), (45, 45.1, 45.2)])
def test_retry_after_is_the_least_that_is_waited(retry_after: float, least: float, most: float) -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    one.refuse(retry_after, 0.0)
    assert least <= one.reserve() <= most


def test_vault_is_asked_less_and_less_while_it_refuses() -> None:
    clock = FakeClock(0.0)
    one, quota = limiter(clock), Quota(clock, 10, window=60.0)  # ten a minute
    ask(one, quota, 59)
    assert len(quota.accepted) == 10
    assert len(quota.refused) <= 20
    pauses = [later - earlier for earlier, later in pairwise(quota.refused)]
    assert max(pauses) <= BACKOFF[1] + 0.01
    ask(one, quota, 61)
    assert len(quota.accepted) == 20


def test_what_was_reserved_before_a_refusal_does_not_stand() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    turn = one.reserve()
    assert one.stands(turn)
    one.refuse(1, 0.0)
    assert not one.stands(turn)
    assert one.stands(one.reserve())


def test_how_long_requests_take_counts_the_wait() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    one.refuse(10, 0.0)  # 4 requests/s are assumed, of which 0.7 are left
    assert one.seconds_for(4) == pytest.approx(10.15 + 4 / 2.8)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 10)), max_size=60))
def test_turns_never_go_back_and_no_pause_is_endless(events: list[tuple[bool, float, float]]) -> None:
    clock = FakeClock(0.0)
    one = AdaptiveRateLimiter(clock.now)
    last = -math.inf
    for accepted, retry_after, passed in events:
        turn = one.reserve()
        assert last <= turn < math.inf
        last, clock.time = turn, max(clock.time, turn)
        if accepted:
            one.accept(clock.time)
        else:
            one.refuse(retry_after, clock.time)
        assert one.rate > 0
        clock.time += passed


def in_progress(one: AdaptiveRateLimiter) -> int:
    """How many identities can be in progress at once."""
    stopping = threading.Event()
    stopping.set()
    with ExitStack() as stack:
        for count in range(1000):
            if one._in_progress["identity"] >= one._room(REQUESTS):
                return count
            stack.enter_context(one.identity(stopping))
        return 1000


def test_the_first_identities_are_few_until_vault_has_accepted_requests() -> None:
    one = limiter(FakeClock(0.0))
    assert in_progress(one) == FIRST
    for _ in range(12):
        one.accept(0.0)
    assert in_progress(one) == FIRST + 12


def test_identities_in_progress_follow_the_rate() -> None:
    one = limiter(FakeClock(0.0))
    one.refuse(0, 0.0)
    assert in_progress(one) == 1
    while one.rate < 30:
        one.accept(0.0)
    assert 10 <= in_progress(one) <= 12


def test_an_identity_waits_until_another_is_done() -> None:
    one, never = limiter(FakeClock(0.0)), threading.Event()
    one.refuse(0, 0.0)
    inside: SimpleQueue[bool] = SimpleQueue()

    def second() -> None:
        with one.identity(never) as admitted:
            inside.put(admitted)

    with one.identity(never) as admitted:
        assert admitted
        thread = threading.Thread(target=second)
        thread.start()
        with pytest.raises(Empty):
            inside.get(timeout=0.1)
    assert inside.get(timeout=PATIENCE)
    thread.join()


def test_whoever_waits_for_a_slot_is_told_of_the_end() -> None:
    one, stopping = limiter(FakeClock(0.0)), threading.Event()
    one.refuse(0, 0.0)
    told: list[bool] = []

    def second() -> None:
        with one.identity(stopping) as admitted:
            told.append(admitted)

    with one.identity(stopping):
        thread = threading.Thread(target=second)
        thread.start()
        stopping.set()
        thread.join(PATIENCE)
        assert told == [False]
    assert in_progress(one) == 1


def test_no_mint_begins_that_cannot_be_stored_in_time() -> None:
    one = limiter(FakeClock(0.0))
    with one.mint(lambda: 1.0) as admitted:
        assert admitted
    one.refuse(10, 0.0)
    with one.mint(lambda: 11.0) as admitted:  # 4 writes at 2.8 requests/s take 1.4 s more
        assert not admitted
    with one.mint(lambda: 12.0) as admitted:
        assert admitted
        left = iter([60.0, 60.0, 0.5])
        with one.mint(lambda: next(left)) as second:  # the first is not stored yet
            assert not second


def test_requests_that_belong_together_are_sent_at_once_where_the_quota_has_room_for_them() -> None:
    clock = FakeClock(0.0)
    one = limiter(clock)
    assert one.gap == 0
    one.refuse(0, 0.0)
    assert (one.rate > 2, one.gap) == (True, 0)
    clock.time = one.reserve(2)
    assert one.reserve() == pytest.approx(clock.time + 2 / one.rate)
    while one.rate > 2:
        clock.time += 2
        one.accept(clock.time)
        clock.time += 2
        one.refuse(0, clock.time)
    assert one.gap == pytest.approx(1 / one.rate)
