"""Tokens that Vault would keep beyond their expiry are corrected, or reported."""

import logging

import pytest
from support.brokers import World, late
from support.fakes import (
    ACME,
    NOW,
    FakeLockHandle,
    pair,
)

from vault_plugin.errors import (
    BusyError,
    SourceError,
    SourceRefusedError,
    StoreError,
    StoreRefusedError,
)
from vault_plugin.tokens.jwt import Kind


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


def test_what_vault_keeps_too_long_is_corrected_although_another_one_stored_it() -> None:
    world = World()
    world.lock.handle = FakeLockHandle(waited=True)

    def keep_too_long() -> None:
        world.keep()
        world.store.delay(ACME, Kind.ACCESS, 60)

    world.lock.meanwhile = keep_too_long
    assert (world.get().source, world.store.repairs) == ("vault", 1)
