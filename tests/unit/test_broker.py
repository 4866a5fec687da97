"""The read-through: when a stored token is used, when one is minted, and what happens when a side is down."""

import logging

import pytest
from support.brokers import World
from support.fakes import (
    ACME,
    NOW,
    pair,
)

from vault_plugin.errors import (
    BusyError,
    ForeignSecretError,
    SourceBusyError,
    SourceError,
    SourceRefusedError,
    StoreError,
    StoreRefusedError,
    TokenError,
)
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import PathState


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


def test_renew_mints_although_the_stored_token_is_fresh() -> None:
    world = World(pair(at=NOW + 10, jti="new"))
    world.keep()
    grant = world.get(renew=True)
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("endpoint", "new", 1)


def test_renew_does_not_take_another_version_of_the_same_token_for_a_new_one() -> None:
    world = World(pair(at=NOW + 10, jti="new"))
    world.keep()
    world.lock.meanwhile = world.keep  # as another process that corrects when Vault deletes it
    assert (world.get(renew=True).access.token.jti, world.source.mints) == ("new", 1)


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


def test_a_kind_that_was_not_requested_is_a_key_error() -> None:
    grant = World().get(Kind.REFRESH)
    assert grant.refresh.token.kind is Kind.REFRESH
    with pytest.raises(KeyError):
        _ = grant.access


def test_an_empty_state_means_that_nothing_is_known() -> None:
    assert PathState() == PathState(version=0, life=None, stored=None)
