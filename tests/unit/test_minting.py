"""With the lock: another read, one mint, both tokens stored, and failures that are shared."""

from collections.abc import Callable

import pytest
from support.brokers import World
from support.fakes import (
    ACME,
    NOW,
    FakeLockHandle,
    pair,
)

from vault_plugin.errors import (
    BusyError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreRefusedError,
    TokenError,
)
from vault_plugin.tokens.jwt import Kind


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


def test_a_token_that_expires_while_it_is_stored_is_an_error() -> None:
    world = World(pair(life=5))

    def time_passes() -> None:
        world.clock.time += 10

    world.source.meanwhile = time_passes
    with pytest.raises(TokenError):
        world.get()


def test_while_vault_has_no_room_for_a_new_token_none_is_minted() -> None:
    world = World()
    world.store.busy = StoreBusyError("429")
    with pytest.raises(StoreBusyError):
        world.get()
    assert (world.source.mints, world.store.data) == (0, {})


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


def test_after_a_wait_there_is_no_quick_read_where_vault_failed_at_the_one_before() -> None:
    reads = []
    for blind in (False, True):
        world = World()
        world.lock.handle = FakeLockHandle(waited=True)
        assert world.broker._reader is not None
        world.broker._reader.blind = blind
        assert world.get().source == "endpoint"
        reads.append(world.store.reads)
    assert reads[1] == reads[0] - 1
