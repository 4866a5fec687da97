"""Version 0.1.0 itself, from git's history, and this version on the same paths: neither breaks the other's tokens."""

from pathlib import Path

import pytest
from support import notes
from support.cli import World
from support.side_by_side import Version, released


@pytest.fixture(params=["0.1.0 first", "0.1.0 second"])
def versions(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> tuple[Version, Version]:
    """One version and the other."""
    folder = tmp_path / "released"
    folder.mkdir()
    if released(folder) is None:
        raise notes.skipped("git's history here does not have it", "version 0.1.0 itself beside this one")
    one, other = Version(world, folder), Version(world, None)
    return (one, other) if request.param == "0.1.0 first" else (other, one)


def test_each_reads_renews_and_rejects_what_the_other_stored(versions: tuple[Version, Version]) -> None:
    one, other = versions
    world = one.world
    first = one.get()
    assert other.get() == first | {"source": "vault"}
    second = other.get("--renew")
    assert second["access_token"] != first["access_token"]
    assert one.get()["access_token"] == second["access_token"]
    assert (world.endpoint.mints, one.get()["source"]) == (2, "vault")
    one.reject(second["access_token"])
    third = other.get()
    assert (third["source"], world.endpoint.mints) == ("endpoint", 3)
    other.reject(third["access_token"])  # within a minute of the first rejection, which counts for both
    one.reject(third["access_token"])
    assert (one.get()["access_token"], world.endpoint.mints) == (third["access_token"], 3)


def test_a_manifest_of_one_needs_no_mint_of_the_other(versions: tuple[Version, Version]) -> None:
    one, other = versions
    assert one.sync(range(10)) == "10 identities: 10 minted\n"
    assert "10 fresh" in other.sync(range(10))
    assert "2 minted" in other.sync(range(12))
    assert "12 fresh" in one.sync(range(12))


def test_both_at_the_same_time_mint_once(versions: tuple[Version, Version]) -> None:
    processes = [(version, version.start("get")) for version in versions * 4]
    assert len({version.ended(process) for version, process in processes}) == 1
    assert versions[0].world.endpoint.mints == 1
