"""A token that a server has rejected is minted again, at most once a minute."""

import pytest
from support.brokers import World
from support.fakes import (
    ACME,
    NOW,
    pair,
    token,
)

from vault_plugin.errors import (
    StoreRefusedError,
)
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState


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
