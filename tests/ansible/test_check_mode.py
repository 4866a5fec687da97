"""Check mode: Vault is read, nothing is minted or written."""

from collections.abc import Callable

import pytest
from support.ansible import Ansible, Scene, at, lookup, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy


@pytest.mark.parametrize("flag", [(), ("--check",)], ids=["", "--check"])
def test_check_mode(
    ansible: Ansible, kv2: World, another: Callable[[], World], flag: tuple[str, ...]
) -> None:
    more = with_check_a_lookup_reads_and_says_so_where_it_would_mint if flag else a_token_is_not_corrected
    ansible.together(
        kv2, the_task_reads_and_says_what_it_would_do(another(), flag), more(another()), flags=flag
    )


def the_task_reads_and_says_what_it_would_do(world: World, flag: tuple[str, ...]) -> Scene:
    checked, forced = {"check_mode": True}, {"check_mode": False}
    as_told, alone = (forced, {}) if flag else ({}, checked)  # what comes to the same for the whole play
    tasks = [
        {**token(user_id=27), **checked},
        {**token(user_id=27, kind="both"), **alone},
        {**token(), **as_told},
        {**token(), **checked},
        {**token(renew=True), **checked},
        token(),
        {**token(), **forced},
    ]
    with FaultProxy(world.vault.address) as proxy:
        results, _ = yield at(world, tasks, vault_addr=proxy.address)
    cold, both, minted, warm, renewed, read, forced_read = results
    for one in (cold, both, renewed):
        assert {**one, "changed": True, "failed": False, "msg": "A token would be minted."} == one
        assert "access_token" not in one
    assert (minted["changed"], minted["source"]) == (True, "endpoint")
    for one in (warm, read, forced_read):
        assert (one["changed"], one["source"], one["stale"]) == (False, "vault", False)
        assert one["access_token"] == minted["access_token"]
    assert (world.endpoint.requests, world.endpoint.mints) == (1, 1)
    writes = [line for line in proxy.requests if not line.startswith("GET ")]
    assert writes
    assert not [line for line in writes if "/27/" in line]


def with_check_a_lookup_reads_and_says_so_where_it_would_mint(world: World) -> Scene:
    world.get(KLEARSTACK_USER_ID="27")
    tasks = [
        shown(lookup()),
        shown(lookup(), check_mode=False),
        shown(lookup("{'user_id': 27}, field='access_token'")),
        shown(lookup("{'user_id': 27}, {'user_id': 28}")),
        shown(lookup("{'user_id': 27}, renew=true")),
    ]
    with FaultProxy(world.vault.address) as proxy:
        (cold, forced, warm, *others), _ = yield at(world, tasks, vault_addr=proxy.address)
        assert {line.split()[0] for line in proxy.requests} == {"GET"}
    for one in (cold, forced):
        assert one["msg"].endswith(
            "A token would have to be minted, and with --check a lookup mints none. "
            "The task klearstack.vault.token does with `check_mode: false`."
        )
    assert warm["msg"] == world.endpoint.issued[1]
    for one in others:
        assert "would have to be minted" in one["msg"]
    assert (world.endpoint.requests, world.endpoint.mints) == (1, 1)


def a_token_is_not_corrected(world: World) -> Scene:
    """One that Vault keeps too long; in check mode it is returned as it is."""
    world.get()
    world.vault.keep_too_long(world.mount, "klearstack/Acme/26/access", "10h")
    (checked, corrected), _ = yield at(world, [{**token(), "check_mode": True}, token()])
    for one, version in ((checked, 2), (corrected, 3)):
        assert (one["changed"], one["source"], one["vault"]["version"]) == (False, "vault", version)
    assert checked["vault"]["deletion_time"] > checked["expires_at"]
    assert corrected["vault"]["deletion_time"] <= corrected["expires_at"]
    assert world.endpoint.mints == 1
