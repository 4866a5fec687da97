"""Check mode: Vault is read, nothing is minted or written."""

import pytest
from support.ansible import Ansible, lookup, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy


@pytest.mark.parametrize("flag", [(), ("--check",)], ids=["", "--check"])
def test_in_check_mode_the_task_reads_and_says_what_it_would_do(
    ansible: Ansible, kv2: World, flag: tuple[str, ...]
) -> None:
    checked, forced = {"check_mode": True}, {"check_mode": False}
    as_told, alone = (forced, {}) if flag else ({}, checked)  # what comes to the same for the whole play
    with FaultProxy(kv2.vault.address) as proxy:
        cold, both, minted, warm, renewed, read, forced_read = ansible.results(
            kv2,
            [
                {**token(user_id=27), **checked},
                {**token(user_id=27, kind="both"), **alone},
                {**token(), **as_told},
                {**token(), **checked},
                {**token(renew=True), **checked},
                token(),
                {**token(), **forced},
            ],
            *flag,
            env={"VAULT_ADDR": proxy.address},
        )
    for one in (cold, both, renewed):
        assert {**one, "changed": True, "failed": False, "msg": "A token would be minted."} == one
        assert "access_token" not in one
    assert (minted["changed"], minted["source"]) == (True, "endpoint")
    for one in (warm, read, forced_read):
        assert (one["changed"], one["source"], one["stale"]) == (False, "vault", False)
        assert one["access_token"] == minted["access_token"]
    assert (kv2.endpoint.requests, kv2.endpoint.mints) == (1, 1)
    writes = [line for line in proxy.requests if not line.startswith("GET ")]
    assert writes
    assert not [line for line in writes if "/27/" in line]


def test_with_check_a_lookup_reads_and_says_so_where_it_would_mint(ansible: Ansible, kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        env = {"VAULT_ADDR": proxy.address}
        cold, forced = ansible.results(
            kv2, [shown(lookup()), shown(lookup(), check_mode=False)], "--check", env=env
        )
        for one in (cold, forced):
            assert one["msg"].endswith(
                "A token would have to be minted, and with --check a lookup mints none. "
                "The task klearstack.vault.token does with `check_mode: false`."
            )
        assert {line.split()[0] for line in proxy.requests} == {"GET"}
        assert kv2.endpoint.requests == 0
        kv2.get(KLEARSTACK_USER_ID="27")
        seen = len(proxy.requests)
        warm, of_several, renewed = ansible.results(
            kv2,
            [
                shown(lookup("{'user_id': 27}, field='access_token'")),
                shown(lookup("{'user_id': 27}, {'user_id': 28}")),
                shown(lookup("{'user_id': 27}, renew=true")),
            ],
            "--check",
            env=env,
        )
        assert warm["msg"] == kv2.endpoint.issued[1]
        assert "would have to be minted" in of_several["msg"]
        assert "would have to be minted" in renewed["msg"]
        assert {line.split()[0] for line in proxy.requests[seen:]} == {"GET"}
    assert kv2.endpoint.mints == 1


def test_in_check_mode_a_token_that_vault_keeps_too_long_is_returned_and_not_corrected(
    ansible: Ansible, kv2: World
) -> None:
    kv2.get()
    kv2.vault.keep_too_long(kv2.mount, "klearstack/Acme/26/access", "10h")
    checked, corrected = ansible.results(kv2, [{**token(), "check_mode": True}, token()])
    for one, version in ((checked, 2), (corrected, 3)):
        assert (one["changed"], one["source"], one["vault"]["version"]) == (False, "vault", version)
    assert checked["vault"]["deletion_time"] > checked["expires_at"]
    assert corrected["vault"]["deletion_time"] <= corrected["expires_at"]
    assert kv2.endpoint.mints == 1
