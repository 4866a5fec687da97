"""The task, on hosts, and check mode: Vault is read, nothing is minted or written."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from support.ansible import TOKEN, Ansible, Scene, at, lookup, shown, token
from support.cli import World
from support.fault_proxy import FaultProxy

from vault_plugin.demo.simulator import Simulator


def test_the_task_says_what_it_did(ansible: Ansible, kv2: World, another: Callable[[], World]) -> None:
    ansible.together(
        kv2,
        it_has_changed_something_only_where_it_minted_and_what_it_registers_is_whole(another()),
        its_typed_error_tells_until_whether_another_try_may_help(another()),
        in_check_mode_it_reads_and_says_what_it_would_do(another(), flag=False),
        in_check_mode_a_token_is_not_corrected(another()),
    )


def test_the_flag_check_is_the_check_mode_of_all_tasks(
    ansible: Ansible, kv2: World, another: Callable[[], World]
) -> None:
    ansible.together(
        kv2,
        in_check_mode_it_reads_and_says_what_it_would_do(another(), flag=True),
        with_check_a_lookup_reads_and_says_so_where_it_would_mint(another()),
        flags=("--check",),
    )


def it_has_changed_something_only_where_it_minted_and_what_it_registers_is_whole(world: World) -> Scene:
    by_group = {"module_defaults": {"group/klearstack.vault.vault": {"user_id": 27, "kind": "refresh"}}}
    by_name = {"module_defaults": {TOKEN: {"user_id": 28}}}
    looped = {**token(user_id="{{ item }}", company_name="Loop"), "loop": [1, 1, 2]}
    tasks = [
        {**token(), "register": "first"},
        token(),
        shown("[first.access_token, first.expires_in]"),
        token(renew=True, kind="both"),
        {**token(), **by_group},
        {**token(kind="both"), **by_name},
        looped,
    ]
    (minted, read, used, renewed, group, name, loop), _ = yield at(world, tasks)
    issued = world.endpoint.issued
    assert (minted["changed"], minted["source"], minted["access_token"]) == (True, "endpoint", issued[1])
    assert (read["changed"], read["source"], read["access_token"]) == (False, "vault", issued[1])
    assert used["msg"] == [issued[1], minted["expires_in"]]
    assert (renewed["changed"], [renewed["refresh_token"], renewed["access_token"]]) == (True, issued[2:4])
    assert group["refresh_vault"]["path"] == "klearstack/Acme/27/refresh"
    assert name["vault"]["path"] == "klearstack/Acme/28/access"
    assert [one["changed"] for one in loop["results"]] == [True, False, True]
    assert loop["results"][2]["access_token"] == issued[-1]
    assert world.endpoint.mints == 6


def its_typed_error_tells_until_whether_another_try_may_help(world: World) -> Scene:
    def trying(name: str, **options: Any) -> dict[str, Any]:
        until = f"{name} is succeeded or not {name}.error.retryable"
        return {**token(**options), "register": name, "until": until, "retries": 1, "delay": 0}

    world.endpoint.fault, world.endpoint.fault_count = "401", 1
    with Simulator(fault="401") as refusing, Simulator(fault="503") as down:
        tasks = [
            {**trying("again"), "until": "again is succeeded"},
            trying("refused", url=refusing.url, user_id=1, deadline=5),
            trying("failed", url=down.url, user_id=2, deadline=5),
        ]
        (well, refused, failed), done = yield at(world, tasks)
    assert (well["changed"], well["failed"], world.endpoint.requests) == (True, False, 2)
    assert [one["error"]["code"] for one in (refused, failed)] == ["endpoint_refused", "endpoint_unavailable"]
    assert done.stdout.count("RETRYING") == 2  # the first one and the last one
    for one in (refused, failed):
        assert one["msg"] == f"{one['error']['message']} {one['error']['hint']}"


def in_check_mode_it_reads_and_says_what_it_would_do(world: World, *, flag: bool) -> Scene:
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


def in_check_mode_a_token_is_not_corrected(world: World) -> Scene:
    """One that Vault keeps too long; in check mode it is returned as it is."""
    world.get()
    world.vault.keep_too_long(world.mount, "klearstack/Acme/26/access", "10h")
    (checked, corrected), _ = yield at(world, [{**token(), "check_mode": True}, token()])
    for one, version in ((checked, 2), (corrected, 3)):
        assert (one["changed"], one["source"], one["vault"]["version"]) == (False, "vault", version)
    assert checked["vault"]["deletion_time"] > checked["expires_at"]
    assert corrected["vault"]["deletion_time"] <= corrected["expires_at"]
    assert world.endpoint.mints == 1


def test_it_runs_on_the_controller_once_per_host_with_run_once_for_all_and_by_the_free_strategy_too(
    newest: Ansible, kv2: World
) -> None:
    done = newest.play(
        kv2,
        [
            {**token(), "register": "own"},
            {**token(user_id=27), "delegate_to": "nobody.invalid", "register": "far"},
            {**token(user_id=28), "run_once": True, "register": "once"},
            shown("['GOT', own.access_token, far.access_token, once.access_token] | join(' ')"),
        ],
        hosts=3,
        then={"strategy": "free", "tasks": [token(user_id=29), token(user_id=29)]},
    )
    _, linear, free = done.stdout.split("\nPLAY [all]")
    assert linear.count(" ".join(["GOT", *kv2.endpoint.issued[1:6:2]])) == 3
    ran = re.findall(r"^(ok|changed): \[host.( -> nobody.invalid)?", linear, re.MULTILINE)
    assert Counter(ran) == {
        ("changed", ""): 2,
        ("ok", ""): 2 + 3,
        ("changed", " -> nobody.invalid"): 1,
        ("ok", " -> nobody.invalid"): 2,
    }
    assert Counter(re.findall(r"^(ok|changed): \[host", free, re.MULTILINE)) == {"changed": 1, "ok": 5}
    assert kv2.endpoint.mints == 3 + 1


def test_what_it_shows_is_censored_however_loudly_it_is_asked(ansible: Ansible, kv2: World) -> None:
    tasks = [
        token(kind="both"),
        {**token(user_id="{{ item }}"), "loop": [1, 2]},
        {**token(), "register": "tok", "until": "tok.expires_in > 9999", "retries": 1, "delay": 0},
    ]
    log = ansible.folder / "log"
    for how in ("-v", "-vvvv"):
        env = {"ANSIBLE_LOG_PATH": str(log), "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
        done = ansible.play(kv2, [{"ignore_errors": True, **task} for task in tasks], how, env=env)
        for text in (done.stdout, done.stderr, log.read_text()):
            assert [secret for secret in (*kv2.endpoint.issued, kv2.vault.root_token) if secret in text] == []
        assert "no_log" in done.stdout
    assert kv2.endpoint.mints == 3
