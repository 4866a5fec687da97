"""KV mounts as administrators make them: at any depth, with any settings, behind tight policies and strict servers."""

from pathlib import Path

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy
from support.vault import Vault, configure

from vault_plugin.demo.simulator import Simulator

PATH = "klearstack/Acme/26/access"


def is_preflight(line: str) -> bool:
    return "/sys/internal/ui/mounts/" in line


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_mount_may_lie_at_any_depth_and_its_neighbours_are_not_mistaken_for_it(
    bao: Vault, tmp_path: Path, version: str
) -> None:
    mount = f"team/{tmp_path.name}/a/kv"
    bao.admin.sys.enable_secrets_engine("kv", path=mount, options={"version": version})
    if version == "2":
        configure(bao.admin, mount, {})
    with Simulator() as endpoint:
        world = World(endpoint, bao, mount, tmp_path)
        assert [world.get()["source"] for _ in range(2)] == ["endpoint", "vault"]
        assert world.get()["vault"]["mount"] == mount
        for wrong in (f"{mount}/more", mount.removesuffix("/kv")):
            done = world.run("get", "--renew", "--mount", wrong)
            assert (done.returncode in {77, 78}, endpoint.mints) == (True, 1), done.stderr


@pytest.mark.parametrize("where", ["mount", "path"])
def test_where_check_and_set_is_required_tokens_are_stored_and_renewed(kv2: World, where: str) -> None:
    if where == "mount":
        configure(kv2.vault.admin, kv2.mount, {"cas_required": "true"})
    else:
        kv2.vault.admin.secrets.kv.v2.update_metadata(
            PATH, cas_required=True, custom_metadata={"managed-by": "klearstack-vault"}, mount_point=kv2.mount
        )
    assert kv2.get()["source"] == "endpoint"
    assert kv2.get("--renew")["vault"]["version"] == 2
    assert kv2.vault.newest(kv2.mount, PATH)["deletion_time"]


FORBIDDEN = (
    b'{"errors":["preflight capability check returned 403, please ensure client policies grant access"]}'
)


def test_where_the_preflight_is_forbidden_the_version_has_to_be_given(world: World) -> None:
    version = "2" if world.vault.is_v2(world.mount) else "1"
    with FaultProxy(world.vault.address) as proxy:
        proxy.answer(is_preflight, 403, body=FORBIDDEN, when="before", times=99)
        assert world.run("get", VAULT_ADDR=proxy.address).returncode == 77
        proxy.requests.clear()
        given = "--kv-version", version
        assert [world.get(*given, VAULT_ADDR=proxy.address)["source"] for _ in range(2)] == [
            "endpoint",
            "vault",
        ]
    assert [line for line in proxy.requests if is_preflight(line)] == []
    place = "/data" if version == "2" else ""
    assert proxy.requests[-1].split()[1] == f"/v1/{world.mount}{place}/{PATH}"


def test_a_version_that_is_given_wrongly_is_reported(world: World) -> None:
    version = "1" if world.vault.is_v2(world.mount) else "2"
    done = world.run("get", "--kv-version", version)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert f"The KV secrets engine at {world.mount} is not version {version}" in done.stderr
    if version == "1":  # found out before a token was requested
        assert world.endpoint.requests == 0
    else:  # KV v1 accepts anything, and would keep the token
        stored = world.vault.admin.secrets.kv.v1.read_secret(
            f"data/{PATH.replace('access', 'refresh')}", mount_point=world.mount
        )
        assert stored["data"] == {"data": ""}
        assert world.vault.read(world.mount, f"data/{PATH}") is None


def test_no_request_has_what_vault_2_rejects_whatever_the_settings(
    vault_server: Vault, tmp_path: Path
) -> None:
    """Two slashes in a row in a path, and a header with a token of more than 8 KiB."""
    with Simulator() as endpoint, FaultProxy(vault_server.address) as proxy:
        world = World(endpoint, vault_server, vault_server.mount("v2"), tmp_path)
        role_id, secret_id, _ = vault_server.approle(
            f'path "{world.mount}/*" {{ capabilities = ["create", "update", "read"] }}'
        )
        login: dict[str, str | None] = {
            "KLEARSTACK_VAULT_AUTH": "approle",
            "KLEARSTACK_VAULT_AUTH_MOUNT": "/approle/",
            "KLEARSTACK_VAULT_MOUNT": f"/{world.mount}/",
            "KLEARSTACK_VAULT_PATH_PREFIX": "/klearstack/a/",
            "VAULT_ADDR": f"{proxy.address}//",
            "VAULT_ROLE_ID": role_id,
            "VAULT_SECRET_ID": secret_id,
            "VAULT_TOKEN": None,
        }
        names = {"KLEARSTACK_USER_ID": "a//b", "KLEARSTACK_COMPANY_NAME": "//"}
        for arguments in ((), (), ("--renew",)):
            world.get(*arguments, **login, **names)
        assert [line for line in proxy.requests if "//" in line.split()[1]] == []
        assert max(len(line) for head in proxy.heads for line in head.splitlines()) < 8192


@pytest.mark.parametrize("status", [400, 431])
def test_a_token_that_is_too_long_for_vault_2_is_named(kv2: World, status: int) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        body = b'{"errors":["authentication token exceeds maximum allowed header size"]}'
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        done = kv2.run("get", VAULT_TOKEN="h" * 9000, VAULT_ADDR=proxy.address)
        assert len(proxy.requests) <= 4
    assert (done.returncode, done.stderr.count("\n"), kv2.endpoint.requests) == (77, 1, 0)
    assert "the Vault token is longer than the server accepts" in done.stderr


def test_an_address_with_two_slashes_in_a_row_is_requested_with_one(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        kv2.run("get", "--deadline", "1", VAULT_ADDR=f"{proxy.address}//base//of/")
    assert {line.split()[1].partition("/v1")[0] for line in proxy.requests} == {"/base/of"}
