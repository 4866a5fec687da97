"""`klearstack-vault sync` as a process: a manifest's tokens come to be in Vault, once, whatever happens on the way."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.bulk import (
    Report,
    assert_a_manifest_streams,
    assert_a_second_run_only_reads,
    assert_connections_are_kept,
    ends,
    manifest,
    read,
    results,
    sync,
)
from support.cli import COMMAND, World, run, start
from support.devices import device
from support.fault_proxy import FaultProxy
from support.leaks import leaked
from support.vault import Vault
from support.waiting import until

from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator

# tests/long has 400 and 500.


def test_all_are_minted_and_gone_in_time_and_a_second_run_only_reads(kv2: World) -> None:
    assert_a_second_run_only_reads(kv2, 100)


def test_connections_are_kept_and_memory_stays_flat(kv2: World) -> None:
    assert_connections_are_kept(kv2, 150)


def test_20_thousand_identities_stream(kv2: World) -> None:
    assert_a_manifest_streams(kv2, 20_000)  # tests/long has 100 thousand


FORMS = {
    "yaml": "identities:\n- {user_id: 007, company_name: Acme}\n- {user_id: b, company_name: Ähre}\n",
    "jsonl": '{"user_id": "007", "company_name": "Acme"}\n{"user_id": "b", "company_name": "Ähre"}\n',
    "csv": "user_id,company_name\n007,Acme\nb,Ähre\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_also_on_standard_input(kv2: World, form: str) -> None:
    path = kv2.home / f"m.{form}"
    path.write_text(FORMS[form], encoding="utf-8")
    assert sync(kv2, str(path))[1] == "2 identities: 2 minted\n"
    done = run("sync", "-", "--format", form, environ=kv2.environ, stdin=FORMS[form])
    assert done.stdout == "2 identities: 2 fresh\n"
    assert kv2.vault.read(kv2.mount, "klearstack/Acme/007/access") is not None
    assert kv2.vault.read(kv2.mount, "klearstack/~C3~84hre/b/access") is not None


def test_a_manifest_through_a_pipe_and_a_company_of_the_settings(kv2: World) -> None:
    script = '"$@" sync --format csv <(printf "user_id\\n1\\n2\\n")'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND], env=kv2.environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 identities: 2 minted\n"
    assert kv2.vault.read(kv2.mount, "klearstack/Acme/2/access") is not None


def test_all_that_is_wrong_is_told_at_once_and_nobody_is_contacted(kv2: World) -> None:
    path = kv2.home / "m.yaml"
    path.write_text(
        "defaults: {company_name: Acme}\n"
        "targets:\n"
        "- {address: 'https://v.example', mount: ../x}\n"
        "identities:\n"
        "- {user_id: 1}\n"
        "- {user_id: 2, secret: eyJhbGciOi}\n"
        "- {user_id: 1}\n"
        "- {company_name: Acme}\n"
    )
    with FaultProxy(kv2.vault.address) as proxy:
        code, out, err, report = sync(kv2, str(path), VAULT_ADDR=proxy.address)
    assert (code, out, report, kv2.endpoint.requests, proxy.requests) == (78, "", [], 0, [])
    for said in (
        "line 3: `targets`",
        "--mount",
        "VAULT_TOKEN or BAO_TOKEN is missing",
        "line 6: `secret` is not a key",
        "line 7: `user_id` and company are the same as in line 5",
        "line 8: `user_id` is missing",
    ):
        assert said in err
    assert "eyJ" not in err


def test_some_fail_the_others_are_done_and_the_next_run_does_what_is_left(kv2: World) -> None:
    path = manifest(kv2, range(20))
    kv2.endpoint.fault, kv2.endpoint.fault_count = "401", 3
    code, out, err, report = sync(kv2, path, "--concurrency", "1")
    assert (code, out) == (5, "20 identities: 17 minted, 3 failed\n")
    assert err.count("rejected the request (status 401)") == 1
    assert err.startswith("klearstack-vault: 3 identities failed (lines 3, ")
    failed = [row for row in report if row["result"] == "failed"]
    assert [row["error"]["code"] for row in failed] == ["endpoint_refused"] * 3
    assert leaked(kv2, kv2.endpoint, err + json.dumps(report)) == []
    code, out, _, report = sync(kv2, path)
    assert (code, out) == (0, "20 identities: 17 fresh, 3 minted\n")
    minted = {row["user_id"] for row in report if row["result"] == "minted"}
    assert minted == {row["user_id"] for row in failed}


def test_only_the_first_failures_are_told_and_the_report_has_all(kv2: World) -> None:
    kv2.endpoint.fault = "401"
    code, _, err, report = sync(kv2, manifest(kv2, range(15)))
    assert (code, err.count("\n"), len(report)) == (5, 1, 15)
    assert "15 identities failed (lines " in err
    assert " and 5 more): " in err


def test_failures_in_a_row_end_the_run_unless_that_is_not_wanted(kv2: World) -> None:
    path = manifest(kv2, range(30))
    kv2.endpoint.fault = "401"
    code, out, _, _ = sync(kv2, path, "--concurrency", "1", "--stop-after", "4")
    assert (code, out) == (5, "30 identities: 4 failed, 26 not tried (4 consecutive failures)\n")
    assert kv2.endpoint.requests == 4
    assert sync(kv2, path, "--stop-after", "0")[1] == "30 identities: 30 failed\n"


def test_the_deadline_is_for_the_whole_run(kv2: World) -> None:
    path = manifest(kv2, range(40))
    kv2.endpoint.latency = 0.3
    code, out, err, report = sync(kv2, path, "--concurrency", "2", "--deadline", "3s")
    done = len(report)
    assert (code, err) == (5, "")
    assert 0 < done < 40
    assert out == f"40 identities: {done} minted, {40 - done} not tried (the deadline has passed)\n"
    kv2.endpoint.latency = 0
    assert sync(kv2, path)[1] == f"40 identities: {done} fresh, {40 - done} minted\n"
    assert kv2.endpoint.mints == 40


@contextmanager
def under_way(world: World, path: str, *options: str, mints: int) -> Iterator[subprocess.Popen[str]]:
    """A run that has minted so many, and goes on."""
    report = str(world.home / "first.jsonl")
    with start(
        "sync",
        path,
        "--report",
        report,
        *options,
        environ=world.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            until(lambda: world.endpoint.mints >= mints)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_what_is_in_flight_finish_and_the_next_run_does_the_rest(
    kv2: World, number: signal.Signals
) -> None:
    path = manifest(kv2, range(120))
    kv2.endpoint.latency = 0.3  # so that what is left at the signal takes seconds
    with under_way(kv2, path, mints=20) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    said = "klearstack-vault: Interrupted.\n" if number == signal.SIGINT else ""
    assert (process.returncode, err) == (128 + number, said)
    first = read(kv2.home / "first.jsonl")
    assert results(first) == {"minted": kv2.endpoint.mints}  # nothing was minted in vain
    left = 120 - len(first)
    assert out == f"120 identities: {len(first)} minted, {left} not tried ({number.name})\n"
    kv2.endpoint.latency = 0
    _, out, _, second = sync(kv2, path)
    assert out == f"120 identities: {len(first)} fresh, {left} minted\n"
    assert {row["user_id"] for row in first} == {row["user_id"] for row in second if row["result"] == "fresh"}
    assert kv2.endpoint.mints == 120


def test_what_does_not_finish_in_time_is_reported_as_failed(kv2: World) -> None:
    kv2.endpoint.fault = "hang"
    with under_way(kv2, manifest(kv2, range(9)), "--concurrency", "2", mints=0) as process:
        until(lambda: kv2.endpoint.requests >= 2)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "9 identities: 2 failed, 7 not tried (SIGTERM)\n")
    assert re.match(r"klearstack-vault: 2 identities failed \(lines \d, \d\): It was in progress when", err)
    assert results(read(kv2.home / "first.jsonl")) == {"failed": 2}


def test_a_second_signal_ends_it_at_once(kv2: World) -> None:
    kv2.endpoint.fault = "hang"
    with under_way(kv2, manifest(kv2, range(9)), mints=0) as process:
        until(lambda: kv2.endpoint.requests >= 9)
        process.terminate()

        def ends() -> bool:
            process.terminate()
            return process.poll() is not None

        until(ends)
    assert process.returncode == -signal.SIGTERM


def test_after_kill_9_what_was_reported_as_minted_is_not_minted_again(kv2: World) -> None:
    path = manifest(kv2, range(100))
    kv2.endpoint.latency = 0.2
    with under_way(kv2, path, mints=50) as process:
        process.kill()
    first = {json.loads(line)["user_id"] for line in (kv2.home / "first.jsonl").read_text().split("\n")[:-1]}
    kv2.endpoint.latency = 0
    code, _, _, second = sync(kv2, path)
    assert (code, len(second), len(first) >= 20) == (0, 100, True)
    assert first <= {row["user_id"] for row in second if row["result"] == "fresh"}


def test_shards_side_by_side_are_complete_and_mint_nothing_twice(kv2: World) -> None:
    path = manifest(kv2, range(100))

    def one(number: int) -> Report:
        report = kv2.home / f"{number}.jsonl"
        way = {1: ("--shard", "1/4"), 2: ("--shard", "4"), 3: (), 4: ("--shard", "4")}[number]
        environ = {2: {"JOB_COMPLETION_INDEX": "1"}, 3: {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "4"}}
        environ[4] = {"CI_NODE_INDEX": "4"}
        done = kv2.run("sync", path, "--report", str(report), *way, **environ.get(number, {}))
        assert done.returncode == 0
        return read(report)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(one, range(1, 5)))
    assert all(len(report) > 10 for report in reports)
    users = [row["user_id"] for report in reports for row in report]
    assert sorted(map(int, users)) == list(range(100))
    assert kv2.endpoint.mints == 100


def test_two_runs_at_once_mint_each_identity_once(kv2: World) -> None:
    path = manifest(kv2, range(100))
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: kv2.run("sync", path), range(3)))
    assert [one.returncode for one in done] == [0, 0, 0]
    assert kv2.endpoint.mints == 100


def test_check_reads_only_and_says_what_would_be_minted(kv2: World) -> None:
    sync(kv2, manifest(kv2, range(3)))
    path = manifest(kv2, range(5))
    with FaultProxy(kv2.vault.address) as proxy:
        code, out, _, report = sync(kv2, path, "--check", VAULT_ADDR=proxy.address)
    assert (code, out) == (0, "5 identities: 3 fresh, 2 to be minted\n")
    assert {row["user_id"] for row in report if row["result"] == "would_mint"} == {"3", "4"}
    assert {line.split()[0] for line in proxy.requests} == {"GET"}
    assert kv2.endpoint.requests == 3
    assert sync(kv2, path, "--check", "--detailed-exitcode")[0] == 2
    assert sync(kv2, path, "--detailed-exitcode")[0] == 2
    assert sync(kv2, path, "--detailed-exitcode")[0] == 0
    assert sync(kv2, path, "--check", "--detailed-exitcode")[0] == 0


def test_a_failure_is_more_than_a_change(kv2: World) -> None:
    kv2.endpoint.fault, kv2.endpoint.fault_count = "401", 1
    assert sync(kv2, manifest(kv2, range(3)), "--detailed-exitcode")[0] == 5


def test_the_rate_spaces_mints_and_no_reads(kv2: World) -> None:
    path = manifest(kv2, range(6))
    started = time.monotonic()
    assert sync(kv2, path, "--rate", "5")[1] == "6 identities: 6 minted\n"
    assert time.monotonic() - started >= 1.0  # five times 0.2 s
    # At this rate a second one would wait for days.
    kv2.endpoint.mints = 0
    path = manifest(kv2, [*range(6), 6])
    assert sync(kv2, path, "--rate", "0.00001")[1] == "7 identities: 6 fresh, 1 minted\n"


def test_a_run_that_waits_for_its_turn_ends_at_a_signal(kv2: World) -> None:
    with under_way(kv2, manifest(kv2, range(9)), "--rate", "0.00001", mints=1) as process:
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert out == "9 identities: 1 minted, 8 not tried (SIGTERM)\n"


def test_the_progress_bar_is_for_terminals(kv2: World) -> None:
    path = manifest(kv2, range(20))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "sync", path],
        env=kv2.environ | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        shown = terminal.read1()
    assert b"100%" in shown
    assert done.stdout == b"20 identities: 20 minted\n"
    assert kv2.run("sync", path).stderr == ""


def test_the_report_is_private_and_new_and_no_secret_is_anywhere(kv2: World) -> None:
    report = kv2.home / "report.jsonl"
    report.write_text("old\n")
    report.chmod(0o644)
    _, out, err, rows = sync(kv2, manifest(kv2, range(5)), "-vv")
    assert (report.stat().st_mode & 0o777, len(rows)) == (0o600, 5)
    assert leaked(kv2, kv2.endpoint, out + err + report.read_text()) == []


def test_a_report_that_cannot_be_made_or_written(kv2: World) -> None:
    path = manifest(kv2, range(5))
    done = kv2.run("sync", path, "--report", str(kv2.home / "no" / "report"))
    assert (done.returncode, kv2.endpoint.requests) == (73, 0)
    full = device(kv2.home, "full")
    done = kv2.run("sync", path, "--report", str(full))
    assert (done.returncode, done.stdout) == (74, "")
    assert f"{full} cannot be written" in done.stderr


def test_no_identities_are_none_to_do(kv2: World) -> None:
    assert sync(kv2, manifest(kv2, []))[:3] == (0, "0 identities: nothing to do\n", "")


def test_what_the_parts_warn_of_is_said_once(bao: Vault, tmp_path: Path) -> None:
    with Simulator() as endpoint:
        world = World(endpoint, bao, bao.mount("v2", delete_version_after="100s"), tmp_path)
        code, _, err, _ = sync(world, manifest(world, range(10)))
    assert (code, err.count("delete_version_after")) == (0, 1)


def test_on_kv_v1_too(world: World) -> None:
    path = manifest(world, range(5))
    assert sync(world, path)[1] == "5 identities: 5 minted\n"
    assert sync(world, path)[1] == "5 identities: 5 fresh\n"
    assert world.endpoint.mints == 5


# Several targets.


def two_mounts(world: World) -> tuple[str, str]:
    other = world.vault.mount("v2")
    return f"targets: [{{mount: {world.mount}}}, {{mount: {other}}}]\n", other


def test_one_mint_lands_in_both_targets(kv2: World) -> None:
    head, other = two_mounts(kv2)
    path = manifest(kv2, range(10), head)
    assert sync(kv2, path)[1] == "10 identities: 10 minted\n"
    for user in range(10):
        for kind in ("access", "refresh"):
            secret = kv2.vault.read(kv2.mount, f"klearstack/Acme/{user}/{kind}")
            assert secret is not None
            assert secret == kv2.vault.read(other, f"klearstack/Acme/{user}/{kind}")
        expires_at, deletion_time = ends(kv2.vault, other, user)
        assert expires_at - 3 <= deletion_time <= expires_at
    assert sync(kv2, path)[1] == "10 identities: 10 fresh\n"
    assert kv2.endpoint.mints == 10


@pytest.mark.parametrize("first", [True, False])
def test_what_one_target_holds_is_copied_and_not_minted(kv2: World, first: bool) -> None:
    head, other = two_mounts(kv2)
    sync(kv2, manifest(kv2, range(5)), KLEARSTACK_VAULT_MOUNT=kv2.mount if first else other)
    path = manifest(kv2, range(5), head)
    assert sync(kv2, path, "--check", "--detailed-exitcode")[:2] == (2, "5 identities: 5 to be minted\n")
    assert sync(kv2, path, "--detailed-exitcode")[:2] == (2, "5 identities: 5 copied\n")
    assert kv2.endpoint.mints == 5
    secrets = [kv2.vault.read(mount, "klearstack/Acme/4/refresh") for mount in (kv2.mount, other)]
    assert secrets[0] == secrets[1] is not None


def test_a_target_that_is_down_does_not_keep_the_token_from_the_other(kv2: World) -> None:
    (kv2.home / "token").write_text("hvs.other")
    down = f"{{address: 'http://127.0.0.1:9', token_file: {kv2.home}/token}}"
    path = manifest(kv2, range(3), f"targets: [{down}, {{mount: {kv2.mount}}}]\n")
    code, out, err, _ = sync(kv2, path, "--timeout", "1", KLEARSTACK_DEADLINE="20")
    assert (code, out) == (5, "3 identities: 3 failed\n")
    assert "3 identities failed (lines 4, 5, 6): " in err
    assert err.count("connection refused") == 1
    assert sync(kv2, manifest(kv2, range(3)))[1] == "3 identities: 3 fresh\n"
    assert kv2.endpoint.mints == 3


def test_another_vault_gets_the_token_and_not_what_the_environment_logs_in_with(kv2: World) -> None:
    (kv2.home / ".vault-token").write_text(kv2.vault.root_token)
    with openbao() as server, FaultProxy(server.address) as proxy:
        (kv2.home / "token").write_text(server.root_token)
        own = f"{{address: '{proxy.address}', token_file: {kv2.home}/token, mount: secret}}"
        path = manifest(kv2, range(3), f"targets: [{{mount: {kv2.mount}}}, {own}]\n")
        assert sync(kv2, path)[1] == "3 identities: 3 minted\n"
        without = manifest(
            kv2, range(3), f"targets: [{own.replace(f'token_file: {kv2.home}/token, ', '')}]\n"
        )
        assert sync(kv2, without)[0] == 78
    assert kv2.vault.root_token.encode() not in b"".join(proxy.heads)
    assert sum(line.startswith("POST") for line in proxy.requests) == 3 * 4


# Logins that end.


def test_a_login_that_ends_in_the_middle_is_made_anew(kv2: World) -> None:
    policy = f'path "{kv2.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    role_id, secret_id, _ = kv2.vault.approle(policy, token_ttl="2s", token_max_ttl="2s")
    kv2.endpoint.latency = 1
    environ = {"VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id, "VAULT_TOKEN": None}
    with FaultProxy(kv2.vault.address) as proxy:
        code, out, _, _ = sync(
            kv2,
            manifest(kv2, range(12)),
            *("--auth", "approle", "--concurrency", "2", "--vault-addr", proxy.address),
            **environ,
        )
    assert (code, out) == (0, "12 identities: 12 minted\n")
    assert sum("/login" in line for line in proxy.requests) >= 3


def limited_token(world: World) -> Path:
    """A file with a new Vault token of few rights, which another may end."""
    policy = f'path "{world.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    file = world.home / "vault-token"
    file.write_text(world.vault.policy_token(policy))
    return file


def test_a_token_file_that_is_renewed_by_another_program_is_read_again(kv2: World) -> None:
    file = limited_token(kv2)
    kv2.endpoint.latency = 0.05
    environ = {"VAULT_TOKEN": None, "VAULT_TOKEN_FILE": str(file)}

    def renew(old: str) -> None:
        limited_token(kv2)
        kv2.vault.admin.auth.token.revoke(old)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sync, kv2, manifest(kv2, range(60)), "--concurrency", "2", **environ)
        until(lambda: kv2.endpoint.mints >= 10)
        renew(file.read_text())
        code, out, _, _ = running.result()
    assert (code, out) == (0, "60 identities: 60 minted\n")


def test_a_vault_token_that_is_gone_for_good_is_refused(kv2: World) -> None:
    code, _, err, _ = sync(kv2, manifest(kv2, range(2)), VAULT_TOKEN="hvs.gone", VAULT_TOKEN_FILE=None)
    assert code == 5
    assert "does not know the Vault token" in err
    assert kv2.endpoint.requests == 0


def test_a_token_file_that_has_gone_with_its_token_leaves_the_rest_undone(kv2: World) -> None:
    file = limited_token(kv2)
    kv2.endpoint.latency = 0.1
    environ = {"VAULT_TOKEN": None, "VAULT_TOKEN_FILE": str(file), "KLEARSTACK_DEADLINE": "5s"}
    with ThreadPoolExecutor(1) as pool:
        options = ("-v", "--concurrency", "2", "--stop-after", "2")
        running = pool.submit(sync, kv2, manifest(kv2, range(60)), *options, **environ)
        until(lambda: kv2.endpoint.mints >= 6)
        token = file.read_text()
        file.unlink()
        kv2.vault.admin.auth.token.revoke(token)
        code, _, err, report = running.result()
    assert code == 5
    assert 1 <= results(report)["failed"] <= 4  # those in flight, and the probes
    assert "The login to Vault has expired, and its credentials cannot be read again: VAULT_TOKEN" in err
    assert token not in err
