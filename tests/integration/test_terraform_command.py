"""`klearstack-vault terraform` as Terraform calls it: JSON in, JSON out, nothing else anywhere."""

import json
import signal
import subprocess
import time

import pytest
from support.cli import COMMAND, World, run
from support.crowd import assert_one_mint
from support.waiting import until

QUERY = {"user_id": "26", "company_name": "Acme"}
REFERENCE = {
    "mount",
    "kv_version",
    "access_name",
    "access_version",
    "access_expires_at",
    "refresh_name",
    "refresh_version",
    "refresh_expires_at",
}


def ask(
    world: World, *arguments: str, query: dict[str, str] | str = "", **environ: str | None
) -> subprocess.CompletedProcess[str]:
    """One call; the identity is in the query, and not in the environment."""
    stdin = query if isinstance(query, str) and query else json.dumps(QUERY | dict(query or {}))
    nobody = {"KLEARSTACK_USER_ID": None, "KLEARSTACK_COMPANY_NAME": None}
    return run("terraform", *arguments, environ=world.environ | nobody | environ, stdin=stdin)


def answer(
    world: World, *arguments: str, query: dict[str, str] | str = "", **environ: str | None
) -> dict[str, str]:
    """What Terraform takes: one flat object of strings in ASCII and nothing on stderr."""
    done = ask(world, *arguments, query=query, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.startswith("{")  # no text before it, no byte order mark
    assert done.stdout.endswith("}\n")
    result: dict[str, str] = json.loads(done.stdout)
    assert all(isinstance(value, str) for value in result.values())
    return result


def test_the_answer_refers_to_both_tokens_and_holds_none(world: World) -> None:
    result = answer(world)
    assert set(result) == REFERENCE
    assert result["mount"] == world.mount
    for kind, issued in (("access", world.endpoint.issued[1]), ("refresh", world.endpoint.issued[0])):
        stored = world.vault.read(world.mount, result[f"{kind}_name"])
        assert stored is not None
        assert (stored[f"{kind}_token"], stored["expires_at"]) == (issued, result[f"{kind}_expires_at"])
        assert issued not in json.dumps(result)


def test_versions_are_those_of_kv_v2_and_empty_on_v1(world: World) -> None:
    result = answer(world)
    if world.vault.is_v2(world.mount):
        assert (result["kv_version"], result["access_version"], result["refresh_version"]) == ("2", "1", "1")
    else:
        assert (result["kv_version"], result["access_version"], result["refresh_version"]) == ("1", "", "")


def test_the_query_says_how_to_log_in_and_the_environment_with_what(kv2: World) -> None:
    policy = f"""
        path "{kv2.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{kv2.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
    """
    role_id, secret_id, _ = kv2.vault.approle(policy, mount="modules")
    login = {"VAULT_TOKEN": None, "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    query = {"auth": "approle", "auth_mount": "modules"}
    assert answer(kv2, query=query, **login)["access_version"] == "1"
    done = ask(kv2, query=query | {"auth_mount": "elsewhere"}, **login)
    assert done.returncode == 77
    assert "`auth_mount` in the query (KLEARSTACK_VAULT_AUTH_MOUNT)" in done.stderr
    done = ask(kv2, query=query | {"vault_addr": "http://127.0.0.1:9"}, **login)
    assert (done.returncode, "unknown key `vault_addr`" in done.stderr) == (76, True)


def test_nothing_changes_while_the_stored_tokens_are_reused(world: World) -> None:
    first = answer(world)
    assert [answer(world) for _ in range(2)] == [first] * 2
    assert world.endpoint.mints == 1


def test_renew_mints_and_the_versions_tell(kv2: World) -> None:
    kv2.store()
    result = answer(kv2, query={"renew": "true"})
    assert (result["access_version"], result["refresh_version"], kv2.endpoint.mints) == ("2", "2", 2)
    assert answer(kv2, query={"renew": "false"}) == result


def test_a_token_is_to_last_two_minutes_unless_the_query_says_otherwise(kv2: World) -> None:
    kv2.endpoint.access_ttl = 400
    kv2.store()
    time.sleep(1.1)
    assert answer(kv2, query={"min_ttl": "395s"})["access_version"] == "1"  # half of its life suffices
    kv2.endpoint.access_ttl = 100
    answer(kv2, query={"renew": "true"})
    assert answer(kv2)["access_version"] == "2"


def test_mount_and_folder_come_from_the_query_first(kv2: World) -> None:
    other = kv2.vault.mount("v2")
    result = answer(kv2, query={"mount": other, "path_prefix": "team/a"})
    assert (result["mount"], result["access_name"]) == (other, "team/a/Acme/26/access")
    assert (
        answer(kv2, query={"mount": "", "path_prefix": ""})["mount"] == kv2.mount
    )  # "" is as good as left out


def test_tokens_come_only_with_the_option_that_says_so(kv2: World) -> None:
    result = answer(kv2, "--with-tokens")
    assert set(result) == REFERENCE | {"access_token", "refresh_token"}
    assert [result["refresh_token"], result["access_token"]] == kv2.endpoint.issued


def test_with_the_endpoint_down_a_token_that_lives_is_referred_to_in_silence(world: World) -> None:
    result = answer(world)
    world.endpoint.fault = "503"
    assert answer(world, query={"renew": "true"}) == result


def test_no_setting_makes_it_refer_to_a_token_that_is_not_in_vault(kv2: World) -> None:
    done = ask(kv2, VAULT_ADDR="http://127.0.0.1:9", KLEARSTACK_ON_VAULT_ERROR="bypass")
    assert (done.returncode, done.stdout, kv2.endpoint.mints) == (69, "", 0)


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("", 76, "not JSON"),
        ('{"user_id": 26, "company_name": "Acme"}', 76, "`user_id` is not a string"),
        ('{"user_id": "26"}', 76, "`company_name`"),
        ('{"user_id": "26", "company_name": "Acme", "token": "x"}', 76, "`token`"),
        ('{"user_id": "26", "company_name": "Acme", "min_ttl": "soon"}', 76, "`min_ttl` in the query"),
        ('{"user_id": "26", "company_name": "Acme", "mount": "../x"}', 76, "`mount` in the query"),
    ],
)
def test_what_is_wrong_with_the_query_is_told_in_one_line(
    kv2: World, query: str, code: int, said: str
) -> None:
    done = run("terraform", environ=kv2.environ, stdin=query)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.startswith("klearstack-vault: ")
    assert done.stderr.isascii()
    assert done.stderr.count("\n") == 1
    assert kv2.endpoint.requests == 0


@pytest.mark.parametrize("fault", ["401", "not-json", "parameter-missing", "documented"])
def test_what_is_wrong_with_the_endpoint_is_told_in_one_line(kv2: World, fault: str) -> None:
    kv2.endpoint.fault = fault
    done = ask(kv2)
    assert (done.returncode in {65, 76, 77, 78}, done.stdout, done.stderr.count("\n")) == (True, "", 1)
    assert not any(token in done.stderr for token in kv2.endpoint.issued)


def test_12_at_once_mint_once(kv2: World) -> None:
    assert_one_mint(kv2, 12, "terraform", stdin=json.dumps(QUERY))  # tests/long has 40


def test_an_interrupt_is_said_on_stderr(kv2: World) -> None:
    kv2.endpoint.latency = 60
    with subprocess.Popen(
        [*COMMAND, "terraform"],
        env=kv2.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(QUERY))
        process.stdin.close()
        process.stdin = None
        until(lambda: kv2.endpoint.requests)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "klearstack-vault: Interrupted.\n")
    assert process.returncode == 130


@pytest.mark.parametrize("moment", range(8))
def test_killed_at_any_instant_it_leaves_what_the_next_run_gets_right(kv2: World, moment: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "terraform"], env=kv2.environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(QUERY).encode())
        process.stdin.close()
        time.sleep(0.05 + moment * 0.04)  # from before it reads to after it has stored
        process.send_signal(signal.SIGKILL)
    result = answer(kv2)
    assert answer(kv2) == result
    assert kv2.endpoint.mints <= 2
