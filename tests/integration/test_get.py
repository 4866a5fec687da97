"""The main job, whole: `klearstack-vault get` as a process, a real Vault, the simulated endpoint over real HTTP."""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier

import pytest
from support.cli import COMMAND, World, run, start
from support.crowd import assert_one_mint
from support.devices import device
from support.fault_proxy import FaultProxy
from support.vault import Vault
from support.waiting import until

from vault_plugin.demo.simulator import Simulator
from vault_plugin.timing.clock import parse_rfc3339

# A try and a call take as long as a loaded machine needs.
PATIENT = {"KLEARSTACK_TIMEOUT": "60", "KLEARSTACK_DEADLINE": "60"}


def claims(jwt: str) -> dict[str, int]:
    payload = jwt.split(".")[1]
    decoded: dict[str, int] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def test_the_second_get_reads_what_the_first_one_minted(world: World) -> None:
    for source in ("endpoint", "vault"):
        before = time.time()
        answer = world.get()
        after = time.time()
        assert (answer["source"], answer["access_token"]) == (source, world.endpoint.issued[1])
        exp = claims(answer["access_token"])["exp"]
        assert parse_rfc3339(answer["expires_at"]) == pytest.approx(exp, abs=0.001)
        assert exp - after - 2 < answer["expires_in"] <= exp - before + 1
        assert answer["stale"] is False
        assert answer["token_type"] == "Bearer"
    assert world.endpoint.mints == 1


def test_the_same_on_a_vault_in_a_container(vault_server: Vault, tmp_path: Path) -> None:
    with Simulator() as endpoint:
        world = World(endpoint, vault_server, vault_server.mount("v2"), tmp_path)
        assert [world.get()["source"], world.get()["source"]] == ["endpoint", "vault"]
        assert endpoint.mints == 1


def test_the_answer_says_where_the_token_lies_and_when_vault_drops_it(kv2: World) -> None:
    place = kv2.get()["vault"]
    assert (place["mount"], place["path"], place["version"]) == (kv2.mount, "klearstack/Acme/26/access", 1)
    stored = kv2.vault.read(kv2.mount, place["path"])
    assert stored is not None
    gap = claims(stored["access_token"])["exp"] - (parse_rfc3339(place["deletion_time"]) or 0)
    assert 0 <= gap <= 3
    assert set(stored) == {
        "access_token",
        "token_type",
        "expires_at",
        "issued_at",
        "jti",
        "user_id",
        "company_name",
        "release_version",
        "issued_by",
    }
    assert stored["issued_by"] == kv2.endpoint.url
    assert all(isinstance(value, str) for value in stored.values())


def test_both_tokens_come_with_their_own_lives_and_places(world: World) -> None:
    answer = world.get("--token", "both")
    assert {answer["access_token"], answer["refresh_token"]} == set(world.endpoint.issued)
    assert answer["refresh_expires_in"] > answer["expires_in"]
    assert answer["refresh_vault"]["path"] == "klearstack/Acme/26/refresh"
    assert world.get("--token", "refresh")["refresh_token"] == answer["refresh_token"]
    assert world.endpoint.mints == 1


def test_renew_mints_a_newer_one_and_keeps_it(world: World) -> None:
    first = world.store()
    second = world.get("--renew")
    assert second["source"] == "endpoint"
    assert world.get()["access_token"] == second["access_token"] != first
    assert world.endpoint.mints == 2


def test_min_ttl_decides_whether_the_stored_one_is_good_enough(kv2: World) -> None:
    kv2.store()
    assert kv2.get("--min-ttl", "7m")["source"] == "vault"
    kv2.endpoint.access_ttl = 10_000  # of which half is more than what is left of the first one
    kv2.get("--renew")
    assert kv2.get("--min-ttl", "1h")["source"] == "vault"
    assert kv2.get("--min-ttl", "1h23m")["source"] == "vault"
    assert kv2.get("--min-ttl", "3h")["source"] == "vault"  # clamped to half of its life


def test_a_short_lived_token_vanishes_from_vault_and_is_minted_again(kv2: World) -> None:
    kv2.endpoint.access_ttl = 6
    first = kv2.get()
    looked: list[float] = []

    def is_gone() -> bool:
        looked.append(time.time())
        return kv2.vault.read(kv2.mount, first["vault"]["path"]) is None

    until(is_gone)
    assert len(looked) == 1 or looked[-2] < claims(first["access_token"])["exp"]  # the last time it was there
    second = kv2.get()
    assert (second["source"], second["vault"]["version"], kv2.endpoint.mints) == ("endpoint", 2, 2)


def test_16_processes_at_once_on_a_cold_identity_mint_once(kv2: World) -> None:
    assert_one_mint(kv2, 16, "get")  # tests/long has 50


def test_two_hosts_that_mint_at_once_agree_by_check_and_set(kv2: World, tmp_path: Path) -> None:
    second_turn = Barrier(2)

    def both_ask() -> bool:
        if second_turn.wait(60):
            time.sleep(1.1)  # so that this one's token is the newer one
        return True

    kv2.answer_when(both_ask)
    processes = []
    for host in ("one", "two"):  # that don't share a lock folder
        environ = kv2.environ | {"KLEARSTACK_LOCK_DIR": str(tmp_path / host), **PATIENT}
        processes.append(start("get", environ=environ, stdout=subprocess.PIPE))
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert kv2.endpoint.mints == 2
    assert len(answers) == 1
    assert answers == {kv2.run("get").stdout}


def test_a_killed_holder_of_the_lock_holds_nobody_up(kv2: World) -> None:
    kv2.endpoint.fault, kv2.endpoint.fault_count = "hang", 1
    first = start("get", environ=kv2.environ, stdout=subprocess.PIPE)
    until(lambda: kv2.endpoint.requests)
    first.kill()
    first.communicate()
    assert kv2.get()["source"] == "endpoint"


def test_with_the_endpoint_down_the_stored_token_is_used_and_called_stale(world: World) -> None:
    world.endpoint.access_ttl = 100
    token = world.store()
    world.endpoint.fault = "503"
    done = world.run("get", "--format", "json", "--renew", **PATIENT)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["stale"], answer["source"]) == (0, True, "vault")
    assert answer["access_token"] == token
    assert "WARNING" in done.stderr
    assert token not in done.stderr


def test_with_vault_down_the_call_fails_and_mints_nothing(kv2: World) -> None:
    done = kv2.run("get", VAULT_ADDR="http://127.0.0.1:9")
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (69, "", 0)
    assert "connection refused" in done.stderr


def test_with_vault_down_bypass_mints_loudly_and_stores_nothing(kv2: World) -> None:
    done = kv2.run("get", "--format", "json", "--on-vault-error", "bypass", VAULT_ADDR="http://127.0.0.1:9")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["source"], answer["vault"]) == (0, "endpoint", None)
    assert "WITHOUT being stored" in done.stderr


def test_a_sealed_vault_is_named_and_not_waited_for(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: True, 503, body=b'{"errors":["Vault is sealed"]}', when="before", times=99)
        done = kv2.run("get", VAULT_ADDR=proxy.address)
    assert done.returncode == 69
    assert "sealed" in done.stderr


def test_credentials_come_from_files_as_well(kv2: World, tmp_path: Path) -> None:
    for name, value in {"token": kv2.vault.root_token, "user": "26", "company": "Acme"}.items():
        (tmp_path / name).write_text(value + "\n")
    answer = kv2.get(
        VAULT_TOKEN=None,
        VAULT_TOKEN_FILE=str(tmp_path / "token"),
        KLEARSTACK_USER_ID=None,
        KLEARSTACK_USER_ID_FILE=str(tmp_path / "user"),
        KLEARSTACK_COMPANY_NAME=None,
        KLEARSTACK_COMPANY_NAME_FILE=str(tmp_path / "company"),
    )
    assert answer["vault"]["path"] == "klearstack/Acme/26/access"


def test_the_identity_comes_from_standard_input_and_the_vault_token_from_home(kv2: World) -> None:
    (kv2.home / ".vault-token").write_text(kv2.vault.root_token + "\n")
    arguments = ("get", "--user-id", "-", "--company-name", "-", "--format", "json")
    done = run(*arguments, environ=kv2.environ | {"VAULT_TOKEN": None}, stdin="26\nAcme\n")
    assert json.loads(done.stdout)["vault"]["path"] == "klearstack/Acme/26/access"


def test_bao_variables_come_before_vault_variables(kv2: World) -> None:
    answer = kv2.get(
        BAO_ADDR=kv2.vault.address, VAULT_ADDR="http://127.0.0.1:9", BAO_TOKEN=kv2.vault.root_token
    )
    assert answer["source"] == "endpoint"


def test_output_goes_into_a_private_file_and_nowhere_else(kv2: World, tmp_path: Path) -> None:
    file = tmp_path / "token"
    done = kv2.run("get", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text().strip() == kv2.endpoint.issued[1]
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_output_that_cannot_be_made_costs_no_request_and_one_that_is_full_no_token(kv2: World) -> None:
    done = kv2.run("get", "--output", str(kv2.home / "missing" / "token"))
    assert (done.returncode, done.stdout, kv2.endpoint.requests) == (73, "", 0)
    done = kv2.run("get", "--output", str(device(kv2.home, "full")))
    assert (done.returncode, done.stdout) == (74, "")
    assert kv2.get()["source"] == "vault"


def test_curl_takes_the_token_from_standard_input(kv2: World) -> None:
    config = kv2.run("get", "--format", "curl").stdout
    shown = subprocess.run(
        ["curl", "-sS", "-K", "-", "-v", kv2.endpoint.url],
        input=config,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Authorization: Bearer {kv2.endpoint.issued[1]}" in shown.stderr


def test_approle_logs_in_reads_writes_and_leaves_no_login_behind(kv2: World) -> None:
    role_id, secret_id, accessors = kv2.vault.approle(f"""
        path "{kv2.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{kv2.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
    """)
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_TOKEN": None, "VAULT_ROLE_ID": role_id}
    before = accessors()
    assert kv2.get(**login, VAULT_SECRET_ID=secret_id)["source"] == "endpoint"
    assert kv2.get(**login, VAULT_SECRET_ID=secret_id)["source"] == "vault"
    assert accessors() <= before
    done = kv2.run("get", **login, VAULT_SECRET_ID="wrong")
    assert done.returncode == 77
    assert "rejected the approle login" in done.stderr


@pytest.mark.usefixtures("measured")
def test_a_login_that_may_not_be_revoked_is_no_failure(kv2: World) -> None:
    role_id, secret_id, _ = kv2.vault.approle(
        f"""
        path "{kv2.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{kv2.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
        """,
        token_no_default_policy=True,
    )
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    assert kv2.get(**login)["source"] == "endpoint"
    assert "was not revoked" in kv2.run("get", "-v", **login).stderr


@pytest.mark.usefixtures("measured")
def test_a_namespace_is_one_of_its_own(bao: Vault, tmp_path: Path) -> None:
    namespace = bao.namespace()
    with Simulator() as endpoint:
        world = World(endpoint, bao, "kv", tmp_path)
        assert world.get(VAULT_NAMESPACE=namespace)["source"] == "endpoint"
        assert world.get(VAULT_NAMESPACE=namespace)["source"] == "vault"
        assert world.run("get").returncode != 0  # there is no such mount outside


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vault_plugin", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("klearstack-vault ")


def test_a_standard_output_that_is_full_is_no_bug_and_loses_no_token(kv2: World, tmp_path: Path) -> None:
    with device(tmp_path, "full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "get"], env=kv2.environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    assert "Standard output" in done.stderr
    assert kv2.get()["source"] == "vault"


def test_a_revoked_vault_token_is_said_to_be_one(kv2: World) -> None:
    kv2.store()
    token = kv2.vault.admin.auth.token.create(ttl="1h")["auth"]["client_token"]
    assert kv2.get(VAULT_TOKEN=token)["source"] == "vault"
    kv2.vault.admin.auth.token.revoke(token)
    done = kv2.run("get", VAULT_TOKEN=token)
    assert (done.returncode, done.stdout) == (77, "")
    assert "it has been revoked, has expired, or is wrong" in done.stderr
