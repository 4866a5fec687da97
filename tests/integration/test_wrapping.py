"""`--wrap-ttl` on a real Vault: a token of Vault that returns the token once, and not after the JWT has expired."""

import json
import subprocess
from typing import Any

import pytest
from hvac.exceptions import Forbidden, InvalidRequest
from support.bulk import manifest, read, sync
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.vault import Vault

from vault_plugin.demo.embedded import binary
from vault_plugin.timing.clock import parse_rfc3339


def unwrapped(vault: Vault, token: str) -> dict[str, Any]:
    """What is behind a wrapping token, which is then used up."""
    data: dict[str, Any] = vault.admin.sys.unwrap(token=token)["data"]
    with pytest.raises((InvalidRequest, Forbidden)):
        vault.admin.sys.unwrap(token=token)
    return data


def lookup(vault: Vault, token: str) -> tuple[int, float]:
    """How long it is valid, and until when (Unix seconds)."""
    about = vault.admin.write_data("sys/wrapping/lookup", data={"token": token})["data"]
    created = parse_rfc3339(about["creation_time"])
    assert created is not None
    return about["creation_ttl"], created + about["creation_ttl"]


def test_the_wrapping_token_returns_the_fields_of_get_s_json_once(world: World) -> None:
    for kind, source in (("both", "endpoint"), ("access", "vault")):
        done = world.run("get", "--wrap-ttl", "2m", "--token", kind, "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        assert not any(token in done.stdout for token in world.endpoint.issued)
        answer = json.loads(done.stdout)
        assert (answer["unwrap"], answer["source"]) == ("vault unwrap", source)
        assert "access_token" not in answer
        ttl, end = lookup(world.vault, answer["wrapping_token"])
        assert ttl == answer["wrapping_expires_in"] == 120
        assert parse_rfc3339(answer["wrapping_expires_at"]) == pytest.approx(int(end), abs=0.001)
        plain = world.get("--token", kind)
        inside = unwrapped(world.vault, answer["wrapping_token"])
        same = plain.keys() - {"source", "expires_in", "refresh_expires_in"}
        assert inside.keys() == plain.keys()
        assert {name: inside[name] for name in same} == {name: plain[name] for name in same}
        assert answer["vault"] == inside["vault"] == plain["vault"]
    assert world.endpoint.mints == 1


def test_it_never_outlives_the_jwt(kv2: World) -> None:
    done = kv2.run("get", "--wrap-ttl", "100h", "--format", "json")
    answer = json.loads(done.stdout)
    ttl, end = lookup(kv2.vault, answer["wrapping_token"])
    exp = parse_rfc3339(answer["expires_at"])
    assert exp is not None
    assert exp - 60 < end <= exp
    assert ttl == answer["wrapping_expires_in"]


def test_a_slow_vault_does_not_make_it_outlive_the_jwt(kv2: World) -> None:
    kv2.get()
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay(lambda line: "/sys/wrapping/wrap" in line, 1.2, times=1)
        done = kv2.run("get", "--wrap-ttl", "100h", "--format", "json", VAULT_ADDR=proxy.address)
    answer = json.loads(done.stdout)
    _, end = lookup(kv2.vault, answer["wrapping_token"])
    assert end <= (parse_rfc3339(answer["expires_at"]) or 0)


def test_the_variables_lead_to_the_token_as_the_output_says(kv2: World) -> None:
    done = kv2.run("get", "--wrap-ttl", "60", "--format", "env")
    assert kv2.endpoint.issued[1] not in done.stdout
    (hint,) = (line for line in done.stdout.splitlines() if line.startswith("#"))
    command = hint.split("`")[1].replace("vault unwrap", f"{binary()} unwrap -field=access_token")
    script = f'eval "$OUTPUT"; {command}'
    environ = {"OUTPUT": done.stdout, "VAULT_ADDR": kv2.vault.address, "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(
        ["bash", "-c", script], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == kv2.endpoint.issued[1]


def test_a_denied_wrapping_and_a_vault_that_fails_are_told_without_a_token(kv2: World) -> None:
    policy = f'path "{kv2.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    done = kv2.run("get", "--wrap-ttl", "60", VAULT_TOKEN=kv2.vault.policy_token(policy))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (77, "", 1)
    assert "Vault denied the wrapping of the token (status 403)" in done.stderr
    assert "sys/wrapping/wrap" in done.stderr
    wrapping = 'path "sys/wrapping/wrap" { capabilities = ["update"] }'
    done = kv2.run("get", "--wrap-ttl", "60", VAULT_TOKEN=kv2.vault.policy_token(policy + wrapping))
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)
    assert unwrapped(kv2.vault, done.stdout.strip())["access_token"] == kv2.endpoint.issued[1]
    # There is nothing to wrap with while Vault is down: the setting to do without it does not count.
    down = {"VAULT_ADDR": "http://127.0.0.1:9", "KLEARSTACK_ON_VAULT_ERROR": "bypass"}
    done = kv2.run("get", "--wrap-ttl", "60", KLEARSTACK_DEADLINE="1", **down)
    assert (done.returncode, done.stdout, kv2.endpoint.mints) == (69, "", 1)


def test_a_report_holds_a_wrapping_token_for_each_valid_token(kv2: World) -> None:
    path = manifest(kv2, range(1, 4))
    for result in ("minted", "fresh"):
        code, _, err, report = sync(kv2, path, "--wrap-ttl", "5m")
        assert (code, err) == (0, "")
        assert (kv2.home / "report.jsonl").stat().st_mode & 0o777 == 0o600
        assert [row["result"] for row in report] == [result] * 3
        assert len({row["wrapping_token"] for row in report}) == 3
        for row in report:
            stored = kv2.vault.read(kv2.mount, f"klearstack/Acme/{row['user_id']}/access")
            assert stored is not None
            inside = unwrapped(kv2.vault, row["wrapping_token"])
            assert inside["access_token"] == stored["access_token"]
            assert inside["vault"]["path"] == f"klearstack/Acme/{row['user_id']}/access"
            assert (row["unwrap"], row["wrapping_expires_in"]) == ("vault unwrap", 300)
            assert stored["access_token"] not in json.dumps(row)


def test_with_several_vaults_the_first_one_wraps_and_a_failure_counts_as_one(kv2: World, bao: Vault) -> None:
    head = "targets:\n- {path_prefix: klearstack}\n- {path_prefix: other}\n"
    policy = f'path "{kv2.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
    path = manifest(kv2, range(1, 3), head)
    code, out, err, report = sync(kv2, path, "--wrap-ttl", "60", VAULT_TOKEN=bao.policy_token(policy))
    assert (code, out) == (5, "2 identities: 2 failed\n")
    assert "denied the wrapping" in err
    assert [row["error"]["code"] for row in report] == ["vault_refused"] * 2
    code, _, _, report = sync(kv2, path, "--wrap-ttl", "60")
    assert (code, kv2.endpoint.mints) == (0, 2)
    assert "vault" not in unwrapped(kv2.vault, report[0]["wrapping_token"])


def test_a_report_with_wrapping_tokens_goes_to_no_place_that_others_can_read(kv2: World) -> None:
    path = manifest(kv2, range(1))
    public, private = kv2.home / "public", kv2.home / "private"
    public.touch(0o644)
    private.touch(0o600)
    for file, code in ((public, 73), (private, 0)):
        with file.open("w") as out:
            command = [*COMMAND, "sync", path, "--report", "-", "--wrap-ttl", "60"]
            done = subprocess.run(
                command,
                env=kv2.environ,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=90,
            )
        assert done.returncode == code, done.stderr
        assert kv2.endpoint.mints == (code == 0)
    (row,) = read(private)
    assert unwrapped(kv2.vault, row["wrapping_token"])["access_token"] == kv2.endpoint.issued[1]
