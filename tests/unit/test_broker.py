"""The read-through: when a stored token is used, when one is minted, and what happens when a side is down."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from support.fakes import (
    ACME,
    NOW,
    FakeClock,
    FakeLock,
    FakeLockHandle,
    FakeReader,
    FakeSource,
    FakeStore,
    pair,
    token,
)

from vault_plugin.broker import Broker, Grant
from vault_plugin.broker.freshness import Freshness
from vault_plugin.errors import (
    BusyError,
    ForeignSecretError,
    OtherEndpointError,
    SourceBusyError,
    SourceError,
    SourceRefusedError,
    StoreBusyError,
    StoreError,
    StoreRefusedError,
    TokenError,
    UserMismatchError,
)
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef

DEADLINE = Deadline(10)
URL = "https://api.example"


class World:
    """A broker and its surroundings."""

    def __init__(self, *minted: Any, warm: bool = True, bypass: bool = False, min_ttl: float = 60) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(self.clock.now)
        self.source = FakeSource(list(minted) or [pair()])
        self.lock = FakeLock()
        self.built: list[str] = []
        self.broker = Broker(
            reader=FakeReader(self.store) if warm else None,
            store=self._get_store,
            source=lambda: self.source,
            lock=self.lock,
            freshness=Freshness(now=self.clock.now, vault_now=self.clock.now, endpoint=URL, min_ttl=min_ttl),
            deadline=10,
            bypass=bypass,
        )

    def _get_store(self) -> FakeStore:
        self.built.append("store")
        return self.store

    def get(self, *kinds: Kind, renew: bool = False) -> Grant:
        return self.broker.get(ACME, kinds or (Kind.ACCESS,), renew=renew)

    def keep(self, *, at: int = NOW, life: int = 900, jti: str = "kept", by: str = "", **claims: Any) -> None:
        """Store both tokens as another process would."""
        for kind in Kind:
            state = self.store.read(ACME, kind, DEADLINE)
            made = token(kind, at=at, life=life, jti=jti, by=by, **claims)
            self.store.write(ACME, made, "1", state, DEADLINE)


def test_a_miss_mints_once_and_stores_both_tokens() -> None:
    world = World()
    grant = world.get()
    assert (grant.source, grant.stale, world.source.mints, world.lock.acquired) == ("endpoint", False, 1, 1)
    assert sorted(world.store.data) == ["p/Acme/26/access", "p/Acme/26/refresh"]


def test_the_refresh_token_is_written_first_so_that_a_reader_of_the_access_token_finds_both() -> None:
    world = World()
    world.get()
    assert list(world.store.data) == ["p/Acme/26/refresh", "p/Acme/26/access"]


def test_if_the_access_token_cannot_be_written_the_refresh_token_is_there_alone() -> None:
    world = World()

    def break_vault_at_the_second() -> None:
        if world.store.data:
            world.store.error = StoreError("down")
        world.store.before_write = break_vault_at_the_second

    world.store.before_write = break_vault_at_the_second
    with pytest.raises(StoreError):
        world.broker.ensure(ACME)
    assert list(world.store.data) == ["p/Acme/26/refresh"]


STAGING = "https://staging.example"


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("left", [900, 30])
def test_a_token_of_another_endpoint_is_refused_and_nothing_is_minted(warm: bool, left: int) -> None:
    world = World(warm=warm)
    world.keep(by=STAGING)
    world.clock.time = NOW + 900 - left
    calls: list[Callable[[], object]] = [
        world.get,
        lambda: world.broker.ensure(ACME),
        lambda: world.broker.stored(ACME),
    ]
    for call in calls:
        with pytest.raises(OtherEndpointError, match="Another endpoint") as caught:
            call()
        assert "--path-prefix" in caught.value.hint
        assert "--renew" in caught.value.hint
        assert STAGING not in f"{caught.value} {caught.value.hint}"
    assert world.source.mints == 0


def test_a_token_of_another_endpoint_is_no_stale_fallback() -> None:
    world = World(SourceError("down"))
    world.keep(by=STAGING)
    with pytest.raises(SourceError):
        world.get(renew=True)


def test_renew_replaces_the_tokens_of_another_endpoint() -> None:
    world = World(pair(at=NOW - 100, jti="ours", by=URL))
    world.keep(by=STAGING)
    grant = world.get(renew=True)
    assert (grant.source, grant.access.token.jti) == ("endpoint", "ours")
    assert world.get(Kind.ACCESS, Kind.REFRESH).source == "vault"
    assert world.source.mints == 1


def test_an_expired_token_of_another_endpoint_is_replaced() -> None:
    world = World(pair(at=NOW + 900, by=URL))
    world.keep(by=STAGING)
    world.clock.time = NOW + 900
    assert world.get().source == "endpoint"


def test_a_refresh_token_of_another_endpoint_is_refused_before_anything_is_minted() -> None:
    world = World()
    world.keep(by=STAGING)
    del world.store.data["p/Acme/26/access"]
    with pytest.raises(OtherEndpointError):
        world.get()
    with pytest.raises(OtherEndpointError):
        world.broker.ensure(ACME)
    assert world.source.mints == 0


@pytest.mark.parametrize("renew", [True, False])
def test_the_loser_of_a_race_against_another_endpoint_gets_that_error(renew: bool) -> None:
    world = World(pair(by=URL))
    world.source.meanwhile = lambda: world.keep(by=STAGING, jti="theirs")
    with pytest.raises(OtherEndpointError):
        world.get(renew=renew)


def test_what_was_stored_without_its_issuer_is_served_and_gets_one_with_the_next_mint() -> None:
    world = World(pair(at=NOW + 1, by=URL))
    world.keep()
    assert world.get().source == "vault"
    world.get(renew=True)
    assert [data["issued_by"] for _, data, _ in world.store.data.values()] == [URL, URL]


def test_a_stored_token_that_names_another_user_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    world = World(pair(by=URL, jti="ours"))
    world.keep(user_id=27, at=NOW + 30)
    assert world.broker.stored(ACME) is None
    assert world.get().access.token.jti == "ours"
    assert caplog.records == []


@pytest.mark.parametrize("call", ["get", "ensure", "stored"])
def test_where_another_user_is_accepted_each_stored_token_that_names_one_comes_with_a_warning(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.store.accept_other_users = True
    world.keep(user_id=27)
    grant = getattr(world.broker, call)(ACME)
    assert grant.access.token.user_id == "27"
    assert ["names another user" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("bypass", [True, False])
def test_a_mismatch_is_raised_although_a_stored_token_is_valid(bypass: bool) -> None:
    world = World(UserMismatchError("another user"), bypass=bypass, warm=False)
    world.keep()
    world.clock.time = NOW + 850
    with pytest.raises(UserMismatchError):
        world.get()
    world.store.error = StoreError("down")
    with pytest.raises(UserMismatchError if bypass else StoreError):
        world.get()


def test_a_hit_needs_neither_store_nor_source_nor_lock() -> None:
    world = World()
    world.keep()
    grant = world.get()
    assert (grant.source, grant.access.token.jti) == ("vault", "kept")
    assert (world.built, world.source.mints, world.lock.acquired) == ([], 0, 0)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(("left", "found"), [(60, True), (59, False), (0, False)])
def test_stored_follows_the_rules_of_get_without_minting(warm: bool, left: int, found: bool) -> None:
    world = World(warm=warm)
    assert world.broker.stored(ACME) is None
    world.keep()
    world.clock.time = NOW + 900 - left
    grant = world.broker.stored(ACME, tuple(Kind))
    assert (grant is not None) == found
    assert (world.source.mints, world.lock.acquired) == (0, 0)


def test_without_a_warm_reader_a_hit_still_needs_no_lock_and_no_minting() -> None:
    world = World(warm=False)
    world.keep()
    assert world.get().source == "vault"
    assert (world.source.mints, world.lock.acquired) == (0, 0)


@pytest.mark.parametrize(("left", "source"), [(60, "vault"), (59, "endpoint")])
def test_a_token_is_used_down_to_min_ttl(left: int, source: str) -> None:
    world = World(pair(at=NOW + 900))
    world.keep()
    world.clock.time = NOW + 900 - left
    assert world.get().source == source


@pytest.mark.parametrize(("left", "source"), [(15, "vault"), (14, "endpoint")])
def test_min_ttl_is_capped_at_half_of_a_short_lifetime(left: int, source: str) -> None:
    world = World(pair(at=NOW + 30))
    world.keep(life=30)
    world.clock.time = NOW + 30 - left
    assert world.get().source == source


def test_with_min_ttl_0_a_token_is_used_to_its_last_second_but_not_beyond() -> None:
    world = World(pair(at=NOW + 900), min_ttl=0)
    world.keep()
    world.clock.time = NOW + 899
    assert world.get().source == "vault"
    world.clock.time = NOW + 900
    assert world.get().source == "endpoint"


def test_renew_mints_although_the_stored_token_is_fresh() -> None:
    world = World(pair(at=NOW + 10, jti="new"))
    world.keep()
    grant = world.get(renew=True)
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("endpoint", "new", 1)


def test_renew_takes_what_another_renewed_while_it_waited() -> None:
    world = World()
    world.keep()
    world.lock.meanwhile = lambda: world.keep(at=NOW + 5, jti="renewed by another")
    grant = world.get(renew=True)
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("vault", "renewed by another", 0)


def test_a_caller_that_waited_for_the_lock_reads_again_before_minting() -> None:
    world = World()
    world.lock.meanwhile = world.keep
    assert (world.get().source, world.source.mints) == ("vault", 0)


def test_the_loser_of_a_race_among_hosts_returns_the_winners_token() -> None:
    world = World()
    world.source.meanwhile = lambda: world.keep(at=NOW + 1, jti="winner")
    grant = world.get()
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("vault", "winner", 1)


def test_both_tokens_are_minted_together_if_one_of_them_is_missing() -> None:
    world = World(pair(at=NOW + 1, jti="new"))
    world.keep()
    del world.store.data["p/Acme/26/refresh"]
    grant = world.get(Kind.ACCESS, Kind.REFRESH)
    assert {kind: held.token.jti for kind, held in grant.tokens.items()} == {
        Kind.ACCESS: "new",
        Kind.REFRESH: "new",
    }


def test_the_refresh_token_has_its_own_lifetime() -> None:
    world = World()
    world.keep(life=900)
    world.clock.time = NOW + 500
    world.store.data["p/Acme/26/access"] = (9, {}, 0)  # not read
    assert world.get(Kind.REFRESH).source == "vault"


@pytest.mark.parametrize("down", [SourceError("down"), SourceBusyError("429")], ids=["down", "busy"])
def test_stale_if_error(down: SourceError, caplog: pytest.LogCaptureFixture) -> None:
    world = World(down)
    world.keep()
    world.clock.time = NOW + 850
    grant = world.get()
    assert (grant.source, grant.stale, grant.shortest_ttl) == ("vault", True, 50)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_lock_that_stays_taken_counts_as_the_endpoint_being_down() -> None:
    world = World()
    world.keep()
    world.clock.time = NOW + 850

    def taken() -> None:
        raise BusyError("taken")

    world.lock.meanwhile = taken
    assert world.get().stale
    world.clock.time = NOW + 900
    with pytest.raises(BusyError):
        world.get()


@pytest.mark.parametrize(
    "refusal", [SourceRefusedError("401"), TokenError("no JWT")], ids=["refused", "no JWT"]
)
def test_a_refusal_or_an_invalid_token_is_raised_although_the_stored_token_is_valid(
    refusal: Exception,
) -> None:
    world = World(refusal)
    world.keep()
    world.clock.time = NOW + 850
    with pytest.raises(type(refusal)):
        world.get()


def test_an_expired_token_is_never_returned_even_if_the_endpoint_is_down() -> None:
    world = World(SourceError("down"))
    world.keep()
    world.clock.time = NOW + 900
    with pytest.raises(SourceError):
        world.get()


def test_with_vault_down_nothing_is_minted() -> None:
    world = World(warm=False)
    world.store.error = StoreError("down")
    with pytest.raises(StoreError):
        world.get()
    assert world.source.mints == 0


def test_bypass_mints_without_storing_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    world = World(warm=False, bypass=True)
    world.store.error = StoreError("down")
    grant = world.get()
    assert (grant.source, grant.access.ref, list(grant.tokens)) == ("endpoint", None, [Kind.ACCESS])
    assert "WITHOUT being stored" in caplog.text


def test_bypass_does_not_mint_twice_if_vault_goes_down_after_the_minting() -> None:
    world = World(bypass=True)

    def break_vault() -> None:
        world.store.error = StoreError("down")

    world.source.meanwhile = break_vault
    assert world.get().access.ref is None
    assert world.source.mints == 1


def test_without_bypass_a_failing_write_is_an_error() -> None:
    world = World()

    def break_vault() -> None:
        world.store.error = StoreError("down")

    world.source.meanwhile = break_vault
    with pytest.raises(StoreError):
        world.get()


@pytest.mark.parametrize(
    "refusal", [StoreRefusedError("403"), ForeignSecretError("taken")], ids=["403", "taken"]
)
def test_bypass_does_not_hide_a_refusal(refusal: StoreError) -> None:
    world = World(warm=False, bypass=True)
    world.store.error = refusal
    with pytest.raises(type(refusal)):
        world.get()
    assert world.source.mints == 0


def test_a_token_that_expires_while_it_is_stored_is_an_error() -> None:
    world = World(pair(life=5))

    def time_passes() -> None:
        world.clock.time += 10

    world.source.meanwhile = time_passes
    with pytest.raises(TokenError):
        world.get()


def test_a_kind_that_was_not_requested_is_a_key_error() -> None:
    grant = World().get(Kind.REFRESH)
    assert grant.refresh.token.kind is Kind.REFRESH
    with pytest.raises(KeyError):
        _ = grant.access


def test_an_empty_state_means_that_nothing_is_known() -> None:
    assert PathState() == PathState(version=0, life=None, stored=None)


def test_ensure_needs_one_read_for_a_fresh_token_and_none_of_its_refresh_token() -> None:
    world = World(warm=False)
    world.keep()
    world.store.reads = 0
    grant = world.broker.ensure(ACME)
    assert (grant.source, grant.access.token.jti, grant.stale, grant.waited) == (
        "vault",
        "kept",
        False,
        False,
    )
    assert (world.store.reads, world.source.mints, world.lock.acquired) == (1, 0, 1)


def test_ensure_reads_each_token_once_before_it_mints_and_stores_both() -> None:
    world = World(warm=False)
    grant = world.broker.ensure(ACME)
    assert (grant.source, list(grant.tokens), world.source.mints) == ("endpoint", [Kind.ACCESS], 1)
    assert sorted(world.store.data) == ["p/Acme/26/access", "p/Acme/26/refresh"]
    assert world.store.reads == 2 + 2  # the fake store reads once more for each write


def test_a_cautious_ensure_mints_nothing_that_cannot_be_stored() -> None:
    world = World()
    world.store.read_only = StoreError("no")
    with pytest.raises(StoreError):
        world.broker.ensure(ACME, cautious=True)
    assert world.source.mints == 0
    world.store.read_only = None
    assert world.broker.ensure(ACME, cautious=True).source == "endpoint"
    assert (world.source.mints, world.store.tries) == (1, 3)


def test_ensure_does_not_use_the_warm_reader() -> None:
    world = World(warm=True)
    world.keep()
    world.store.reads = 0
    world.broker.ensure(ACME)
    assert (world.store.reads, world.lock.acquired) == (1, 1)


@pytest.mark.parametrize(("left", "source"), [(60, "vault"), (59, "endpoint")])
def test_ensure_goes_by_the_min_ttl_of_the_settings(left: int, source: str) -> None:
    world = World(pair(at=NOW + 900))
    world.keep()
    world.clock.time = NOW + 900 - left
    assert world.broker.ensure(ACME).source == source


@pytest.mark.parametrize(
    ("min_ttl", "source"), [(0, "vault"), (300, "vault"), (301, "endpoint"), (1e9, "endpoint")]
)
def test_ensure_goes_by_the_min_ttl_of_the_call(min_ttl: float, source: str) -> None:
    world = World(pair(at=NOW + 600))
    world.keep()
    world.clock.time = NOW + 600
    assert (world.broker.stored(ACME, min_ttl=min_ttl) is not None) == (source == "vault")
    assert world.broker.ensure(ACME, min_ttl=min_ttl).source == source


def test_a_min_ttl_of_0_is_one() -> None:
    world = World()
    world.keep()
    world.clock.time = NOW + 899
    assert world.broker.ensure(ACME, min_ttl=0).source == "vault"


def test_the_min_ttl_of_a_call_is_capped_at_half_of_a_lifetime() -> None:
    world = World()
    world.keep()
    world.clock.time = NOW + 450
    assert world.broker.ensure(ACME, min_ttl=1e9).source == "vault"


@pytest.mark.parametrize("waited", [True, False])
def test_a_grant_shows_whether_its_caller_had_to_wait(waited: bool) -> None:
    world = World()
    world.lock.handle.waited = waited
    assert world.broker.ensure(ACME).waited == waited  # minted
    assert world.broker.ensure(ACME).waited == waited  # found


@pytest.mark.parametrize("failure", [SourceError("down"), SourceBusyError("429"), BusyError("taken")])
def test_ensure_returns_nothing_stale(failure: Exception) -> None:
    world = World(failure)
    world.keep()
    world.clock.time = NOW + 850
    with pytest.raises(type(failure)):
        world.broker.ensure(ACME)
    assert world.get().access.token.jti == "kept"  # as whoever wants any token does


def test_ensure_mints_nothing_with_vault_down() -> None:
    world = World()
    world.store.error = StoreError("down")
    with pytest.raises(StoreError):
        world.broker.ensure(ACME)
    assert world.source.mints == 0


def adopted(here: World, there: World) -> dict[str, int]:
    """What is stored here then, by path: its lifetime from NOW on, in seconds."""
    here.broker.adopt(ACME, there.broker)
    return {path: int(end - NOW) for path, (_, _, end) in here.store.data.items()}


def test_both_tokens_are_adopted_in_the_order_of_a_minting() -> None:
    here, there = World(), World()
    there.keep()
    assert list(adopted(here, there).items()) == [("p/Acme/26/refresh", 900), ("p/Acme/26/access", 900)]
    assert here.store.data == there.store.data
    assert (here.source.mints, there.source.mints, here.lock.acquired) == (0, 0, 0)


def test_an_adopted_token_is_used() -> None:
    here, there = World(), World()
    there.keep(jti="theirs")
    here.broker.adopt(ACME, there.broker)
    assert here.broker.ensure(ACME).access.token.jti == "theirs"


def test_what_the_other_does_not_hold_is_not_adopted() -> None:
    here, there = World(), World()
    there.keep()
    del there.store.data["p/Acme/26/refresh"]
    assert adopted(here, there) == {"p/Acme/26/access": 900}
    assert adopted(World(), World()) == {}


def test_nothing_newer_is_overwritten_by_what_is_adopted() -> None:
    here, there = World(), World()
    there.keep(at=NOW)
    here.keep(at=NOW + 1, jti="newer")
    here.broker.adopt(ACME, there.broker)
    assert here.get().access.token.jti == "newer"


def test_no_token_of_another_endpoint_is_adopted() -> None:
    here, there = World(), World()
    there.keep(by=STAGING)
    assert adopted(here, there) == {}


def test_nothing_is_adopted_where_a_token_of_another_endpoint_lies_or_comes_in_between() -> None:
    here, there = World(), World()
    there.keep(by=URL)
    here.keep(by=STAGING)
    with pytest.raises(OtherEndpointError):
        here.broker.adopt(ACME, there.broker)
    here.store.data.clear()
    here.store.before_write = lambda: here.keep(by=STAGING)
    with pytest.raises(OtherEndpointError):
        here.broker.adopt(ACME, there.broker)


@pytest.mark.parametrize("here_is_down", [True, False])
def test_nothing_is_adopted_with_either_vault_down(here_is_down: bool) -> None:
    here, there = World(), World()
    there.keep()
    (here if here_is_down else there).store.error = StoreError("down")
    with pytest.raises(StoreError):
        here.broker.adopt(ACME, there.broker)
    assert here.store.data == {}


def test_while_vault_has_no_room_for_a_new_token_none_is_minted() -> None:
    world = World()
    world.store.busy = StoreBusyError("429")
    with pytest.raises(StoreBusyError):
        world.get()
    assert (world.source.mints, world.store.data) == (0, {})


def late(world: World, *kinds: Kind, jti: str = "kept") -> None:
    """Have Vault keep what is stored an hour too long."""
    world.keep(jti=jti)
    for kind in kinds or (Kind.ACCESS,):
        world.store.delay(ACME, kind, 3600)


@pytest.mark.parametrize("warm", [True, False])
def test_a_token_that_vault_keeps_too_long_is_corrected_under_the_lock_without_a_mint(warm: bool) -> None:
    world = World(warm=warm)
    late(world)
    grant = world.get()
    assert (grant.source, grant.access.token.jti, grant.overdue) == ("vault", "kept", 0)
    assert grant.access.ref is not None
    assert grant.access.ref.version == 2
    assert (world.store.repairs, world.source.mints, world.lock.acquired) == (1, 0, 1)


def test_each_requested_kind_is_corrected() -> None:
    world = World()
    late(world, *Kind)
    assert world.get(*Kind).overdue == 0
    assert world.store.repairs == 2


def test_a_caller_that_waited_for_the_lock_finds_it_corrected() -> None:
    world = World()
    late(world)
    world.lock.meanwhile = lambda: world.keep(at=NOW + 1, jti="another's")
    assert world.get().access.token.jti == "another's"
    assert world.store.repairs == 0


@pytest.mark.parametrize("failure", [StoreRefusedError("403", hint="policy"), StoreError("down")])
@pytest.mark.parametrize("warm", [True, False])
def test_a_correction_that_fails_does_not_keep_the_token_from_its_caller(
    failure: StoreError, warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(warm=warm)
    late(world)
    world.store.repair_error = failure
    grant = world.get()
    assert (grant.access.token.jti, grant.stale, world.store.repairs, world.source.mints) == (
        "kept",
        False,
        1,
        0,
    )
    assert grant.overdue == pytest.approx(3600, abs=0.1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"corrected now: {failure.line}" in caplog.text


def test_a_lock_that_stays_taken_does_not_keep_the_token_from_its_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    late(world)

    def taken() -> None:
        raise BusyError("taken")

    world.lock.meanwhile = taken
    assert world.get().access.token.jti == "kept"
    assert "corrected now: taken" in caplog.text


def test_a_token_that_has_grown_old_during_its_correction_is_replaced() -> None:
    world = World(pair(at=NOW + 900, jti="new"))
    late(world)

    def time_passes() -> None:
        world.clock.time = NOW + 901
        world.lock.meanwhile = lambda: None

    world.lock.meanwhile = time_passes
    assert world.get().access.token.jti == "new"


def test_to_look_only_reports_a_token_that_vault_keeps_too_long(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    late(world)
    grant = world.broker.stored(ACME)
    assert grant is not None
    assert (grant.access.token.jti, world.store.repairs, world.lock.acquired) == ("kept", 0, 0)
    assert "3600.0 s longer than its JWT is valid" in caplog.text


def test_to_look_may_correct_it_but_never_mints(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    late(world)
    grant = world.broker.stored(ACME, repair=True)
    assert grant is not None
    assert (grant.overdue, world.store.repairs, world.lock.acquired, caplog.text) == (0, 1, 1, "")
    late(world, jti="again")
    world.clock.time = NOW + 850
    assert world.broker.stored(ACME, repair=True) is None
    assert world.source.mints == 0


def test_ensure_corrects_under_the_lock_that_it_holds() -> None:
    world = World(warm=False)
    late(world)
    assert world.broker.ensure(ACME).overdue == 0
    assert (world.store.repairs, world.source.mints, world.lock.acquired) == (1, 0, 1)


@pytest.mark.parametrize("life", [900, 1])
def test_what_vault_keeps_too_long_is_corrected_even_if_nothing_can_be_minted(life: int) -> None:
    world = World(SourceRefusedError("401"))
    late(world, *Kind)
    world.clock.time = NOW + life
    with pytest.raises(SourceRefusedError):
        world.get(renew=True)
    assert world.store.repairs == 2
    assert [end - NOW for _, _, end in world.store.data.values()] == [900, 900]


def test_a_stale_token_is_the_corrected_one() -> None:
    world = World(SourceError("down"))
    late(world)
    grant = world.get(renew=True)
    assert (grant.stale, grant.overdue) == (True, 0)


def test_renew_does_not_take_the_correction_for_another_callers_renewal() -> None:
    world = World(pair(at=NOW + 10, jti="new"))
    late(world)
    assert world.get(renew=True).access.token.jti == "new"


def test_what_is_corrected_before_it_is_adopted_over() -> None:
    here, there = World(), World()
    there.keep(at=NOW)
    late(here, jti="ours")
    assert adopted(here, there)["p/Acme/26/access"] == 900
    assert here.store.repairs == 1


def test_a_stored_token_is_valid_no_longer_than_its_age_allows() -> None:
    world = World()
    made = token(at=NOW + 3600, life=12)  # by an endpoint whose clock is an hour ahead
    ref = VaultRef("kv", "p", 1, None, format_rfc3339(NOW))
    for seconds, left in [(0, 12), (5, 7), (12, None), (20, None)]:
        world.clock.time = NOW + seconds
        grant = world.broker._freshness.valid([StoredToken(made, ref)])
        assert (grant and grant.shortest_ttl) == left
        assert (world.broker._freshness.fresh([StoredToken(made, ref)]) is not None) == (seconds <= 6)


def test_the_clock_of_the_endpoint_does_not_age_what_is_in_vault() -> None:
    world = World()
    world.broker._freshness.now = lambda: NOW + 3600.0  # as the endpoint's answer to another request said
    made = token(at=NOW + 3600, life=900)
    stored = StoredToken(made, VaultRef("kv", "p", 1, None, format_rfc3339(NOW)))
    grant = world.broker._freshness.valid([stored])
    assert grant is not None
    assert grant.shortest_ttl == 900


# One failure is one failure

DOWN = SourceError("down")


@pytest.mark.parametrize("waited", [True, False])
@pytest.mark.parametrize("warm", [True, False])
def test_the_failure_of_another_caller_is_taken_over(warm: bool, waited: bool) -> None:
    world = World(warm=warm)
    world.lock.handle = FakeLockHandle(waited, DOWN)
    calls: list[Callable[[], object]] = [world.get, lambda: world.broker.ensure(ACME)]
    for call in calls:
        with pytest.raises(SourceError) as caught:
            call()
        assert caught.value is DOWN
    assert world.source.mints == 0


@pytest.mark.parametrize("warm", [True, False])
def test_a_caller_that_takes_over_a_failure_falls_back_to_a_stored_token(warm: bool) -> None:
    world = World(warm=warm)
    world.keep()
    world.clock.time = NOW + 850
    world.lock.handle = FakeLockHandle(waited=True, left=DOWN)
    assert (world.get().stale, world.source.mints) == (True, 0)
    assert world.get(renew=True).stale


def test_what_another_one_stored_meanwhile_comes_before_its_failure_and_needs_no_store() -> None:
    world = World()
    world.lock.handle = FakeLockHandle(waited=True, left=DOWN)
    world.lock.meanwhile = world.keep
    grant = world.get()
    assert (grant.source, grant.waited, world.built) == ("vault", True, [])


def test_what_vault_keeps_too_long_is_corrected_although_another_one_stored_it() -> None:
    world = World()
    world.lock.handle = FakeLockHandle(waited=True)

    def keep_too_long() -> None:
        world.keep()
        world.store.delay(ACME, Kind.ACCESS, 60)

    world.lock.meanwhile = keep_too_long
    assert (world.get().source, world.store.repairs) == ("vault", 1)


def test_renew_does_not_take_what_was_there_before_for_the_work_of_another() -> None:
    world = World(pair(at=NOW + 1, jti="new"))
    world.keep()
    world.lock.handle = FakeLockHandle(waited=True)
    assert world.get(renew=True).access.token.jti == "new"


def test_the_own_failure_is_left_to_others_and_forgotten_when_the_endpoint_responds() -> None:
    world = World(DOWN, pair())
    with pytest.raises(SourceError):
        world.get()
    assert world.lock.handle.left is DOWN
    world.lock.handle.left = None
    world.get()
    assert world.lock.handle.left is None


def test_failures_of_vault_and_invalid_tokens_are_not_shared() -> None:
    for wrong in (TokenError("no token"), StoreBusyError("429")):
        world = World(wrong)
        with pytest.raises(type(wrong)):
            world.get()
        assert world.lock.handle.left is None


@pytest.mark.parametrize(("stored", "ensuring"), [(True, False), (False, False), (True, True)])
def test_the_source_knows_whether_there_is_a_token_to_fall_back_to(stored: bool, ensuring: bool) -> None:
    world = World(pair(at=NOW + 850))
    if stored:
        world.keep()
        world.clock.time = NOW + 850
    world.broker.ensure(ACME) if ensuring else world.get()
    assert world.source.fallback == (stored and not ensuring)


@pytest.mark.parametrize("renew", [True, False])
def test_with_vault_down_one_request_is_sent_before_the_lock_and_retries_by_its_holder(renew: bool) -> None:
    world = World(warm=False)
    world.store.error = StoreError("down")
    with pytest.raises(StoreError):
        world.get(renew=renew)
    assert (world.store.reads, world.lock.acquired, world.source.mints) == (2, 1, 0)


def test_a_refusal_of_vault_is_raised_before_the_lock() -> None:
    world = World(warm=False)
    world.store.error = StoreRefusedError("403")
    with pytest.raises(StoreRefusedError):
        world.get()
    assert world.lock.acquired == 0


def test_renew_mints_where_it_could_not_be_seen_what_was_stored_before() -> None:
    world = World(pair(at=NOW + 1, jti="new"), warm=False)
    world.keep()
    world.store.error = StoreError("down for a moment")
    world.lock.meanwhile = lambda: setattr(world.store, "error", None)
    assert world.get(renew=True).access.token.jti == "new"


class TestALockThatStaysTaken:
    def taken(self, world: World, then: Callable[[], object] = lambda: None) -> None:
        def wait_in_vain() -> None:
            then()
            raise BusyError("taken")

        world.lock.meanwhile = wait_in_vain

    def test_is_vaults_failure_where_vault_fails(self) -> None:
        world = World(warm=False)
        world.store.error = StoreError("down")
        self.taken(world)
        with pytest.raises(StoreError, match="down"):
            world.get()

    def test_does_not_matter_where_a_token_is_there_after_all(self) -> None:
        world = World()
        self.taken(world, world.keep)
        grant = world.get()
        assert (grant.source, grant.stale, grant.waited) == ("vault", False, True)

    def test_keeps_renew_from_renewing(self) -> None:
        world = World()
        world.keep()
        self.taken(world)
        assert world.get(renew=True).stale


# A token that a server has rejected


def test_after_its_token_was_rejected_the_next_call_mints_at_most_once_a_minute() -> None:
    world = World(pair(jti="1"), pair(jti="2"), pair(at=NOW + 60, jti="3"))
    first = world.get().access.token
    world.broker.reject(ACME, first.value)
    assert world.source.mints == 1  # nothing is minted for a caller who may not come back
    second = world.get().access.token
    assert (second.jti, world.source.mints) == ("2", 2)
    world.broker.reject(ACME, second.value)
    assert (world.get().access.token, world.source.mints) == (second, 2)
    world.clock.time += 61
    world.broker.reject(ACME, second.value)
    assert (world.get().access.token.jti, world.source.mints) == ("3", 3)


def test_another_token_than_the_stored_one_changes_nothing() -> None:
    world = World()
    world.broker.reject(ACME, token().value)
    assert world.store.data == {}
    world.keep(jti="new")
    before = dict(world.store.data)
    for value in (token(jti="old").value, Secret(""), token(Kind.REFRESH, jti="new").value):
        world.broker.reject(ACME, value)
    assert world.store.data == before


def test_a_rejection_that_vault_refuses_is_raised() -> None:
    world = World()
    held = world.get().access.token
    world.store.read_only = StoreRefusedError("no")
    with pytest.raises(StoreRefusedError):
        world.broker.reject(ACME, held.value)


def test_a_date_of_rejection_far_from_now_does_not_keep_others_from_counting() -> None:
    for ahead in (-3600, 3600):
        state = PathState(rejected_at=format_rfc3339(NOW + ahead))
        assert not state.newly_rejected(NOW)
    for odd in ("", "yesterday", "2026-09-21"):
        assert not PathState(rejected_at=odd).newly_rejected(NOW)
