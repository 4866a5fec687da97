"""`ensure`, which keeps the tokens of many identities valid."""

import pytest
from support.brokers import STAGING, World
from support.fakes import (
    ACME,
    NOW,
    pair,
)

from vault_plugin.errors import (
    BusyError,
    SourceBusyError,
    SourceError,
    StoreError,
)
from vault_plugin.tokens.jwt import Kind


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


def test_renew_mints_although_the_token_is_fresh() -> None:
    world = World()
    world.keep(at=NOW - 10)
    grant = world.broker.ensure(ACME, renew=True)
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("endpoint", "j", 1)


def test_renew_shares_the_mint_of_another_caller_that_it_waited_for() -> None:
    world = World(warm=False)
    world.keep(at=NOW - 10)
    world.lock.meanwhile = lambda: world.keep(jti="of another caller")
    grant = world.broker.ensure(ACME, renew=True)
    assert (grant.source, grant.access.token.jti, world.source.mints) == ("vault", "of another caller", 0)


def test_renew_replaces_a_token_of_another_endpoint() -> None:
    world = World()
    world.keep(by=STAGING, at=NOW - 10)
    assert world.broker.ensure(ACME, renew=True).source == "endpoint"
