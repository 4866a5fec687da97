"""Which stored tokens are returned: by lifetime, by endpoint, by user."""

from collections.abc import Callable

import pytest
from support.brokers import STAGING, URL, World
from support.fakes import (
    ACME,
    NOW,
    pair,
    token,
)

from vault_plugin.errors import (
    OtherEndpointError,
    SourceError,
    StoreError,
    UserMismatchError,
)
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import StoredToken, VaultRef


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


def test_the_refresh_token_has_its_own_lifetime() -> None:
    world = World()
    world.keep(life=900)
    world.clock.time = NOW + 500
    world.store.data["p/Acme/26/access"] = (9, {}, 0)  # not read
    assert world.get(Kind.REFRESH).source == "vault"


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
