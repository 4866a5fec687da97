"""The task, on hosts."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from support.ansible import TOKEN, Ansible, Scene, at, shown, token
from support.cli import World

from vault_plugin.demo.simulator import Simulator


def test_the_task_says_what_it_did(ansible: Ansible, kv2: World, another: Callable[[], World]) -> None:
    ansible.together(
        kv2,
        it_has_changed_something_only_where_it_minted_and_what_it_registers_is_whole(another()),
        its_typed_error_tells_until_whether_another_try_may_help(another()),
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


def test_it_runs_on_the_controller_once_per_host_and_with_run_once_for_all(
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
    )
    assert done.stdout.count(" ".join(["GOT", *kv2.endpoint.issued[1::2]])) == 3
    assert kv2.endpoint.mints == 3
    ran = re.findall(r"^(ok|changed): \[host.( -> nobody.invalid)?", done.stdout, re.MULTILINE)
    assert Counter(ran) == {
        ("changed", ""): 2,
        ("ok", ""): 2 + 3,
        ("changed", " -> nobody.invalid"): 1,
        ("ok", " -> nobody.invalid"): 2,
    }


def test_it_runs_by_the_free_strategy_too(newest: Ansible, kv2: World) -> None:
    done = newest.play(kv2, [token(), token()], hosts=3, strategy="free")
    assert Counter(re.findall(r"^(ok|changed): \[host", done.stdout, re.MULTILINE)) == {"changed": 1, "ok": 5}
    assert kv2.endpoint.mints == 1


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
