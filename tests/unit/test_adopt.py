"""`adopt`, which copies tokens from one Vault to another."""

import pytest
from support.brokers import STAGING, URL, World, late
from support.fakes import (
    ACME,
    NOW,
)

from vault_plugin.errors import (
    OtherEndpointError,
    StoreError,
)


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


def test_what_is_corrected_before_it_is_adopted_over() -> None:
    here, there = World(), World()
    there.keep(at=NOW)
    late(here, jti="ours")
    assert adopted(here, there)["p/Acme/26/access"] == 900
    assert here.store.repairs == 1
