"""Deleting: what is planned, and what happens to the others when one identity fails."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.fakes import Slots

from vault_plugin.bulk.deletion import Deletion, Plan, planned
from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.stock import Found, Site
from vault_plugin.errors import BusyError, StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.stored import VaultRef

NO_TARGETS: Any = SimpleNamespace(inventories=[])


class FakeInventory:
    """An inventory in which the deletion of a user's tokens ends as `results` says; by default, both are deleted."""

    address = "https://vault.example"

    def __init__(self, **results: int | Exception) -> None:
        self.results = results
        self.manifests: set[str | None] = set()

    def delete(self, place: Place, manifest: str | None = None) -> int:
        self.manifests.add(manifest)
        result = self.results.get(place.user, 2)
        if isinstance(result, Exception):
            raise result
        return result


def found(inventory: Any, user: str, *contents: Any) -> Found:
    place = Place("Acme", user)
    holdings = [
        Holding(place, kind, VaultRef("secret", place.path("p", kind)), 0.0, content)
        for kind, content in zip(Kind, contents or ("ours", "ours"), strict=True)
    ]
    return Found(Site(inventory, place), holdings)


def run(inventory: FakeInventory, *users: str, manifest: str | None = None) -> tuple[Deletion, list[None]]:
    slots: Any = Slots()
    done, steps = Deletion(manifest), list[None]()
    plan = planned((found(inventory, user) for user in users), NO_TARGETS)
    done.run(plan, Parallel(slots, concurrency=1, deadline=Deadline(60)), lambda: steps.append(None))
    return done, steps


def test_a_plan_has_what_is_ours_in_order() -> None:
    plan = planned(
        [
            found(FakeInventory(), "b", "ours", "unmanaged"),
            found(FakeInventory(), "c", "nothing", "nothing"),
            found(FakeInventory(), "d", "unmanaged", "unmanaged"),
            found(FakeInventory(), "a"),
        ],
        NO_TARGETS,
    )
    assert plan.paths == ["secret/p/Acme/a/access", "secret/p/Acme/a/refresh", "secret/p/Acme/b/access"]
    assert [one.site.place.user for one in plan.found] == ["a", "b"]
    assert plan.unmanaged == 3


def test_more_than_10_percent_of_the_paths_are_many() -> None:
    for deleted, kept, is_large in (
        (0, 0, False),
        (0, 9, False),
        (1, 0, True),
        (1, 8, True),
        (1, 9, False),
        (10, 90, False),
        (11, 90, True),
    ):
        assert Plan([], ["p"] * deleted, kept=kept).is_large is is_large, (deleted, kept)


def test_what_is_deleted_is_counted() -> None:
    inventory = FakeInventory(b=1, c=0)
    done, steps = run(inventory, "a", "b", "c", manifest="production")
    assert (done.paths, len(done.places), done.failures.total(), done.last) == (3, 2, 0, None)
    assert len(steps) == 3
    assert inventory.manifests == {"production"}


def test_one_that_fails_does_not_stop_the_others() -> None:
    done, steps = run(FakeInventory(a=BusyError("Busy."), b=BusyError("Busy."), c=ValueError("eyJ")), *"abcd")
    assert (done.paths, len(done.places), len(steps)) == (2, 1, 4)
    assert done.failures["Busy."] == 2
    assert done.failures.total() == 3
    assert "eyJ" not in "".join(done.failures)


def test_a_vault_that_is_down_stops_the_run() -> None:
    with pytest.raises(StoreError, match="down"):
        run(FakeInventory(b=StoreError("It is down.")), *"abc")
