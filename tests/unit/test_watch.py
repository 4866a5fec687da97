"""Tokens kept good: when each is renewed, what an outage does, what gets into files, and when the hook runs."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import NOW, ClosedBreaker, Slots, jwt, token
from support.waiting import until

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.bulk import step, token_files, watch
from vault_plugin.bulk.circuit_breaker import CircuitBreaker, Permit
from vault_plugin.bulk.schedule import Schedule
from vault_plugin.bulk.stats import Expiry, Stats
from vault_plugin.bulk.targets import EnsureResult
from vault_plugin.bulk.token_files import TokenFiles
from vault_plugin.bulk.watch import Watcher, _Watched
from vault_plugin.errors import SourceError, StoreError, UserMismatchError
from vault_plugin.manifest.entries import Entry
from vault_plugin.output.private_files import Rights
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import VaultRef

PATIENCE = 30  # seconds that a real wait may take before the test has failed


def entry(number: int = 0, file: Path | None = None) -> Entry:
    return Entry(number + 1, Identity(str(number), "Acme"), None if file is None else str(file))


def outcome(
    result: Literal["fresh", "minted", "copied"] = "minted",
    *,
    left: float = 900,
    life: int = 900,
    jti: str = "j",
    waited: bool = False,
    issued: bool = True,
) -> EnsureResult:
    """A token of which so much is left."""
    made = token(life=life, jti=jti)
    if not issued:
        made = Token.from_jwt(jwt(iat=None, exp=NOW + life), Kind.ACCESS)
    held = {Kind.ACCESS: GrantedToken(made, VaultRef("secret", "p", 1))}
    source: Literal["endpoint", "vault"] = "endpoint" if result == "minted" else "vault"
    return EnsureResult(result, Grant(held, source, stale=False, now=NOW + life - left, waited=waited))


class FakeTargets(Slots):
    """Vaults in which each look finds what comes next; the last stays. What was asked of them is noted."""

    deadline = 60.0

    def __init__(self, *found: EnsureResult | Exception) -> None:
        self.found = list(found) or [outcome()]
        self.fresh = False
        self.looks: SimpleQueue[tuple[str, str, float | None]] = SimpleQueue()
        self.lock = threading.Lock()
        self.meanwhile: Callable[[], object] = lambda: None

    def check(
        self, identity: Identity, *, min_ttl: float | None = None, repair: bool = False
    ) -> EnsureResult | None:
        self.looks.put(("check", identity.user_id, min_ttl))
        return outcome("fresh") if self.fresh else None

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False, renew: bool = False
    ) -> EnsureResult:
        self.looks.put(("ensure", identity.user_id, min_ttl))
        self.meanwhile()
        with self.lock:
            found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return found

    def looked(self, count: int) -> list[tuple[str, str, float | None]]:
        """The next looks, as soon as they have been taken."""
        return [self.looks.get(timeout=PATIENCE) for _ in range(count)]


class FakeHook:
    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> None:
        self.calls += 1


def calling(hook: FakeHook) -> TokenFiles:
    return TokenFiles(on_change=hook)  # type: ignore[arg-type]


def watcher(
    targets: FakeTargets | None = None, *entries: Entry, stats: Stats | None = None, **how: Any
) -> Watcher:
    return Watcher(
        targets or FakeTargets(),  # type: ignore[arg-type]
        entries or [entry()],
        stats or Stats(),
        **{"concurrency": 1, "breaker": ClosedBreaker(workers=1), **how},
    )


def renewed(one: Watcher, of: Entry, times: int = 1) -> list[float]:
    """The pauses after so many looks at an entry, one after the other."""
    watched = _Watched(of)
    return [one._renew(watched) for _ in range(times)]


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# When


@given(st.integers(3, 10**6))
def test_a_new_token_is_renewed_after_two_thirds_of_its_life_give_or_take_a_tenth_of_the_rest(
    life: int,
) -> None:
    (delay,) = renewed(watcher(FakeTargets(outcome(left=life, life=life))), entry())
    assert life * (1 - 1.1 / 3) - 1e-6 <= delay <= life * (1 - 0.9 / 3) + 1e-6


@given(st.floats(1, 900))
def test_a_stored_token_is_renewed_when_two_thirds_of_its_whole_life_are_over(left: float) -> None:
    (delay,) = renewed(watcher(FakeTargets(outcome("fresh", left=left))), entry())
    assert max(0, left - 330) - 1e-3 <= delay <= max(0, left - 270) + 1e-3


def test_tokens_minted_together_are_not_renewed_together() -> None:
    assert len({renewed(watcher(), entry())[0] for _ in range(20)}) == 20


def test_by_the_time_it_is_due_no_token_is_good_enough_any_more() -> None:
    targets = FakeTargets(outcome("fresh"), outcome("fresh", life=30, left=30))
    watched = _Watched(entry())
    one = watcher(targets)
    for life in (900, 30):
        delay = one._renew(watched)
        assert watched.min_ttl is not None
        assert life - delay <= watched.min_ttl + 1e-9 <= life / 2  # or the broker would find it fresh
    assert [min_ttl for _, _, min_ttl in targets.looked(2)] == [None, pytest.approx(330)]


@pytest.mark.parametrize("result", ["fresh", "minted"])
def test_a_token_that_does_not_tell_when_it_was_issued_is_taken_as_new(
    result: Literal["fresh", "minted"],
) -> None:
    (delay,) = renewed(watcher(FakeTargets(outcome(result, left=600, issued=False))), entry())
    assert 600 * (1 - 1.1 / 3) <= delay <= 600 * (1 - 0.9 / 3)


def test_an_endpoint_that_hands_out_an_old_token_is_not_asked_again_and_again_without_a_pause() -> None:
    one = watcher(FakeTargets(outcome("minted", left=200, life=900)))
    assert all(120 < delay < 150 for delay in renewed(one, entry(), 3))


def test_all_are_looked_at_when_it_begins_and_again_when_they_are_due() -> None:
    targets = FakeTargets(outcome(left=0.06))
    entries = [entry(number) for number in range(5)]
    with watcher(targets, *entries, concurrency=2) as one:
        assert {user for _, user, _ in targets.looked(5)} == {"0", "1", "2", "3", "4"}
        assert one.tried.wait(PATIENCE)
        seen: set[str] = set()

        def all_were_looked_at() -> bool:
            seen.update(user for _, user, _ in targets.looked(1))
            return len(seen) == 5

        until(all_were_looked_at)


def test_what_is_not_due_is_left_alone() -> None:
    targets = FakeTargets(outcome())
    with watcher(targets, entry(0), entry(1)) as one:
        assert one.tried.wait(PATIENCE)
        targets.looked(2)
        with pytest.raises(Empty):
            targets.looks.get(timeout=0.05)


def test_not_all_have_been_tried_until_the_last_has() -> None:
    targets, going_on = FakeTargets(), threading.Event()
    one = watcher(targets, entry(0), entry(1))
    targets.meanwhile = lambda: targets.looks.qsize() < 2 or going_on.wait(PATIENCE)
    with one:
        targets.looked(1)
        assert not one.tried.is_set()
        going_on.set()
        assert one.tried.wait(PATIENCE)


def test_with_no_identity_at_all_there_is_nothing_to_wait_for() -> None:
    with Watcher(FakeTargets(), [], Stats(), concurrency=2) as one:  # type: ignore[arg-type]
        assert one.tried.is_set()
        assert one.status == "0 valid tokens, 0 cannot be renewed"


def test_a_token_that_is_valid_for_centuries_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, waits = Schedule(["it"]), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            schedule.close()

    assert schedule.take() == "it"
    schedule.put("it", 2 * threading.TIMEOUT_MAX)
    monkeypatch.setattr(schedule._changed, "wait", wait)
    assert schedule.take() is None
    assert waits == [3600, 3600]


def test_it_ends_at_once_although_nothing_is_due() -> None:
    one = watcher(concurrency=4)
    with one:
        assert one.tried.wait(PATIENCE)
    assert not any(worker.is_alive() for worker in one._workers)


def test_a_worker_hangs_when_it_exceeds_its_deadline_by_5_s(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    targets, released = FakeTargets(), threading.Event()
    targets.meanwhile = lambda: released.wait(PATIENCE)
    with watcher(targets) as one:
        targets.looked(1)
        start = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: start + now[0])
        for seconds, hangs in ((0, False), (64, False), (66, True), (1e6, True)):
            now[0] = seconds
            assert one.hangs is hangs
        released.set()
        assert one.tried.wait(PATIENCE)
        assert not one.hangs  # idle


def test_an_outage_and_a_wait_for_the_rate_are_no_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "EXCESS", -1e6)  # whatever counts as a step of a worker hangs at once
    with watcher(FakeTargets(StoreError("down"))) as one:
        assert one.tried.wait(PATIENCE)
        assert not one.hangs
    targets = FakeTargets()
    with watcher(targets, entry(1), entry(2), rate=0.001) as one:
        targets.looked(3)  # a check and a mint, and a check before the wait for the other mint
        until(lambda: not one.hangs)


def test_a_file_system_that_hangs_is_a_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writing, released = threading.Event(), threading.Event()

    def write(*_: object, **__: object) -> None:
        writing.set()
        released.wait(PATIENCE)

    monkeypatch.setattr(token_files, "write_file", write)
    with watcher(FakeTargets(), entry(1, tmp_path / "token")) as one:
        assert writing.wait(PATIENCE)
        before = one.hangs
        monkeypatch.setattr(step, "EXCESS", -1e6)
        assert (before, one.hangs) == (False, True)
        released.set()


def test_it_does_not_wait_long_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "GRACE", 0.01)
    targets, released = FakeTargets(), threading.Event()
    targets.meanwhile = lambda: released.wait(PATIENCE)
    with watcher(targets) as one:
        targets.looked(1)
    assert one._workers[0].is_alive()
    released.set()
    one._workers[0].join(PATIENCE)
    assert not one._workers[0].is_alive()


# Rate


class FakeRateLimiter:
    def __init__(self) -> None:
        self.waits = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def acquire(self) -> None:
        self.waits += 1
        self.meanwhile()


def paced(targets: FakeTargets) -> tuple[Watcher, FakeRateLimiter]:
    one, pace = watcher(targets, rate=5.0), FakeRateLimiter()
    one._step._rate_limiter = pace  # type: ignore[assignment]
    return one, pace


def test_with_a_rate_a_good_token_waits_for_nobody() -> None:
    targets = FakeTargets()
    one, pace = paced(targets)
    watched = _Watched(entry())
    one._renew(watched)
    targets.fresh = True
    one._renew(watched)
    assert pace.waits == 1
    assert [what for what, _, _ in targets.looked(3)] == ["check", "ensure", "check"]
    assert targets.looks.empty()


def test_with_a_rate_the_look_is_as_strict_as_what_follows() -> None:
    targets = FakeTargets()
    renewed(paced(targets)[0], entry(), 2)
    assert [min_ttl for _, _, min_ttl in targets.looked(4)] == [
        None,
        None,
        pytest.approx(330),
        pytest.approx(330),
    ]


def test_whoever_waits_for_the_pace_at_the_end_mints_no_more() -> None:
    targets, stats = FakeTargets(), Stats()
    one, pace = paced(targets)
    one._stats = stats
    pace.meanwhile = one._stopping.set
    renewed(one, entry())
    assert [what for what, _, _ in targets.looked(1)] == ["check"]
    assert targets.looks.empty()
    assert (stats.mints, stats.failures) == (0, {})


def test_a_wait_for_the_pace_ends_with_it() -> None:
    targets = FakeTargets()
    with watcher(targets, entry(0), entry(1), rate=0.0001) as one:
        targets.looked(3)  # the first has its turn; the second has looked, and waits for hours
    assert not one._workers[0].is_alive()
    assert targets.looks.empty()


# Outages


def test_a_failure_is_tried_again_after_a_pause_that_grows() -> None:
    one = watcher(FakeTargets(StoreError("down")))
    pauses = [renewed(one, entry(), 8) for _ in range(50)]
    for number, bound in enumerate((1, 2, 4, 8, 15, 15, 15, 15)):
        longest = max(pause[number] for pause in pauses)
        assert bound * 0.7 < longest <= bound


def test_pauses_are_short_again_after_a_success() -> None:
    watched = _Watched(entry())
    one = watcher(FakeTargets(*[StoreError("down")] * 6, outcome(), StoreError("down")))
    assert [one._renew(watched) for _ in range(8)][-1] <= 1


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    targets = FakeTargets(SourceError("The endpoint is down.", hint="Look."))
    one = watcher(targets)
    watched = [_Watched(entry(number)) for number in range(3)]
    for each in [*watched, *watched]:
        one._renew(each)
    assert warnings(caplog) == ["line 1: The endpoint is down. Look. Retrying."]
    targets.found = [outcome()]
    for each in watched[:2]:
        one._renew(each)
    assert len(warnings(caplog)) == 1
    for each in [*watched, *watched]:
        one._renew(each)
    assert warnings(caplog)[1:] == ["all tokens can be renewed again"]
    targets.found = [SourceError("Down again.")]
    one._renew(watched[2])
    assert warnings(caplog)[2:] == ["line 3: Down again. Retrying."]


def test_each_failure_is_counted_by_its_code_and_told_by_v(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats()
    one = watcher(
        FakeTargets(SourceError("a"), StoreError("b"), StoreError("c"), ValueError("CANARY")), stats=stats
    )
    renewed(one, entry(), 4)
    assert stats.failures == {"endpoint_unavailable": 1, "vault_unavailable": 2, "internal": 1}
    infos = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert infos[:3] == ["line 1: a", "line 1: b", "line 1: c"]
    assert "Internal error: ValueError" in infos[3]
    assert "CANARY" not in caplog.text


def test_one_that_fails_keeps_none_of_the_others() -> None:
    class Half(FakeTargets):
        def ensure(
            self,
            identity: Identity,
            *,
            min_ttl: float | None = None,
            cautious: bool = False,
            renew: bool = False,
        ) -> EnsureResult:
            self.looks.put(("ensure", identity.user_id, min_ttl))
            if identity.user_id == "0":
                raise ZeroDivisionError
            return outcome()

    with watcher(Half(), *(entry(number) for number in range(4))) as one:
        assert one.tried.wait(PATIENCE)
        assert one.status == "3 valid tokens, 1 cannot be renewed"


def test_an_outage_pauses_mints_and_a_token_that_needs_none_is_confirmed_once() -> None:
    targets = FakeTargets(SourceError("down"))
    breaker = CircuitBreaker(workers=1)
    one = watcher(targets, breaker=breaker)
    watched = [_Watched(entry(number)) for number in range(5)]
    for each in watched[:3]:
        one._renew(each)
    assert breaker.error is not None
    targets.looked(3)
    assert 0 < one._renew(watched[3]) < 5 + watch.AFTER_OWN_PROBE
    assert targets.looked(1) == [("check", "3", None)]
    assert 0 < one._renew(watched[3]) < 5 + watch.AFTER_OWN_PROBE
    assert targets.looks.empty()
    targets.fresh = True
    assert one._renew(watched[4]) > 500  # until its renewal


def test_while_vault_is_down_only_a_probe_asks_it_and_mints_cautiously() -> None:
    targets = FakeTargets(StoreError("down"), outcome())
    breaker = CircuitBreaker(workers=1, uniform=lambda *_: 0.0)  # a probe is due at once
    one = watcher(targets, breaker=breaker)
    watched = [_Watched(entry(number)) for number in range(3)]
    one._renew(watched[0])
    assert (breaker.acquire(), breaker.cautious) == (Permit.PROBE, True)
    one._renew(watched[1])  # there is a probe
    targets.looked(1)
    assert targets.looks.empty()
    breaker.release(Permit.PROBE)
    assert one._renew(watched[2]) > 500
    assert breaker.error is None


def test_a_look_that_fails_while_mints_pause_is_no_attempt_of_its_own() -> None:
    targets = FakeTargets(SourceError("down"))
    one = watcher(targets, breaker=CircuitBreaker(workers=1))
    for number in range(3):
        one._renew(_Watched(entry(number)))

    def check(*_: object, **__: object) -> None:
        raise StoreError("down")

    targets.check = check  # type: ignore[method-assign]
    assert 0 < one._renew(_Watched(entry(3))) < 5 + watch.AFTER_OWN_PROBE


# What is counted


def test_mints_and_waits_are_counted_and_looks_are_not() -> None:
    stats = Stats()
    found = [
        outcome("minted", waited=True),
        outcome("fresh", waited=True),
        outcome("copied"),
        outcome("minted"),
    ]
    renewed(watcher(FakeTargets(*found), stats=stats), entry(), 4)
    assert (stats.mints, stats.waits, stats.failures) == (2, 2, {})


def test_the_end_of_a_token_is_known_by_the_servers_clocks_and_by_one_that_nobody_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    stats, found = Stats(), outcome(left=600)
    renewed(watcher(FakeTargets(found), stats=stats), entry())
    assert stats.expiries == {entry().identity: Expiry(entry(), found.grant.now + 600, 1600)}


def test_a_token_that_has_ended_is_good_no_more() -> None:
    one = watcher(FakeTargets(outcome(left=600)), stats=(stats := Stats()))
    assert one.status == "0 valid tokens, 0 cannot be renewed"
    renewed(one, entry())
    assert one.status == "1 valid token, 0 cannot be renewed"
    stats.expiries = {
        one: expiry._replace(monotonic=time.monotonic() - 1) for one, expiry in stats.expiries.items()
    }
    assert one.status == "0 valid tokens, 0 cannot be renewed"


def test_a_new_manifest_keeps_what_is_known_of_those_who_stay() -> None:
    stats = Stats(mints=7)
    renewed(watcher(FakeTargets(), entry(0), stats=stats), entry(0))
    renewed(watcher(FakeTargets(), entry(0), entry(1), stats=stats), entry(1))
    assert len(stats.expiries) == 2
    moved = entry(1)._replace(line=9, name="job")
    one = watcher(FakeTargets(), moved, entry(2), stats=stats)
    assert {identity: expiry.entry for identity, expiry in stats.expiries.items()} == {moved.identity: moved}
    assert stats.mints == 9
    assert one.status == "1 valid token, 0 cannot be renewed"


# Files


def test_a_token_gets_into_its_file_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "token"
    renewed(watcher(FakeTargets(outcome())), entry(0, path))
    assert path.read_text() == jwt()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_written_when_its_token_has_changed_and_the_hook_is_called_then(tmp_path: Path) -> None:
    path, hook = tmp_path / "token", FakeHook()
    one = watcher(
        FakeTargets(outcome(jti="a"), outcome("fresh", jti="a"), outcome(jti="b")),
        files=TokenFiles(Rights(0o640), hook),  # type: ignore[arg-type]
    )
    watched = _Watched(entry(0, path))
    files = []
    for _ in range(3):
        one._renew(watched)
        files.append((path.stat().st_ino, path.stat().st_mtime_ns, hook.calls))
    assert files[0] == files[1] != files[2]
    assert hook.calls == 2
    assert path.read_text() == jwt(jti="b")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("old", [b"", b"older", b"\xff", jwt().encode() + b"\n"])
def test_whatever_else_a_file_holds_is_replaced(tmp_path: Path, old: bytes) -> None:
    (tmp_path / "token").write_bytes(old)
    renewed(watcher(), entry(0, tmp_path / "token"))
    assert (tmp_path / "token").read_bytes() == jwt().encode()


def test_a_file_is_given_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
    renewed(watcher(files=TokenFiles(Rights(0o600, (12, 34)))), entry(0, tmp_path / "token"))
    assert owners == [(12, 34)]


def test_a_token_that_names_another_user_is_tried_again_after_5_minutes_at_the_earliest() -> None:
    mismatch = UserMismatchError("another user")
    found: list[EnsureResult | Exception] = [mismatch, SourceError("down"), mismatch, outcome()]
    stats = Stats()
    pauses = renewed(watcher(FakeTargets(*found), stats=stats), entry(), 4)
    assert [pause >= 300 for pause in pauses] == [True, False, True, True]
    assert max(pauses[0], pauses[2]) < 320
    assert stats.failures == {"user_mismatch": 2, "endpoint_unavailable": 1}


def test_a_file_that_cannot_be_written_is_a_failure_that_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    stats, hook = Stats(), FakeHook()
    one = watcher(FakeTargets(outcome(), outcome("fresh")), stats=stats, files=calling(hook))
    watched = _Watched(entry(0, tmp_path / "file" / "token"))
    assert one._renew(watched) <= 1
    assert (stats.failures, stats.mints, hook.calls) == ({"output_not_created": 1}, 1, 0)
    assert "No file can be created in" in warnings(caplog)[0]
    (tmp_path / "file").unlink()
    assert one._renew(watched) > 100
    assert ((tmp_path / "file" / "token").read_text(), hook.calls) == (jwt(), 1)
    assert warnings(caplog)[1:] == ["all tokens can be renewed again"]


def test_without_a_file_there_is_none_and_no_hook() -> None:
    hook = FakeHook()
    renewed(watcher(files=calling(hook)), entry())
    assert hook.calls == 0
