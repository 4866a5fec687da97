"""Permanent failures of Vault are reported after two tries; temporary ones are retried."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy

from vault_plugin.errors import (
    MountMissingError,
    SettingsError,
    StoreError,
    StoreRefusedError,
    StoreSettingsError,
)
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.transport import Transport

PATH = "klearstack/Acme/26/access"
DATA = f"/data/{PATH} "  # with the end of the request's target


def client(world: World, address: str, **environ: str) -> VaultClient:
    given = {
        "KLEARSTACK_VAULT_MOUNT": world.mount,
        "KLEARSTACK_URL": world.endpoint.url,
        "VAULT_ADDR": address,
        "VAULT_TOKEN": "",
        **environ,
    }
    if not environ:
        given["VAULT_TOKEN"] = world.vault.root_token

    def gather(deadline: Deadline) -> Settings:
        return Settings.for_many(given, deadline=f"{deadline.left():.3f}")

    settings = gather(Deadline(60))
    transport = Transport(settings.vault_addr, ServerClock(), timeout=5)
    _opened.append(transport)
    return VaultClient(transport, settings, gather)


_opened: list[Transport] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


@pytest.mark.parametrize("host", ["vault.internal:8200", "u:p@vault.internal:8200"])
def test_a_redirect_to_a_host_that_is_not_named_is_reported_after_two_tries(kv2: World, host: str) -> None:
    location = f"https://{host}/v1/{kv2.mount}/data/{PATH}"
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda _: True, 307, when="before", times=99, location=location)
        with pytest.raises(StoreError, match=r"redirects to vault\.internal:8200, which is none") as caught:
            client(kv2, proxy.address).read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) == 2
    assert caught.value.hint.startswith(
        "Give all nodes of the cluster in --vault-addr (VAULT_ADDR or BAO_ADDR)"
    )


@pytest.mark.parametrize(
    ("status", "location", "said", "hint"),
    [
        (
            302,
            "https://sso.example/login?next=/v1",
            r"\(status 302, a redirect to https://sso.example\)",
            "login page",
        ),
        (
            307,
            "https://vault.internal:8200/ui/",
            r"a redirect to https://vault\.internal:8200\)",
            "login page",
        ),
        (301, "https://127.0.0.1{path}", r"a redirect to https://127\.0\.0\.1\)", "Use https://"),
        (308, "/login", r"\(status 308, a redirect\)", "login page"),
    ],
)
def test_a_redirect_that_no_standby_sends_is_not_vaults(
    kv2: World, status: int, location: str, said: str, hint: str
) -> None:
    location = location.format(path=f"/v1/{kv2.mount}/data/{PATH}")
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda _: True, status, when="before", times=99, location=location)
        with pytest.raises(StoreSettingsError, match=f"is not Vault .*{said}") as caught:
            client(kv2, proxy.address).read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) == 1
    assert hint in caught.value.hint
    assert "all nodes" not in caught.value.hint


@pytest.mark.parametrize("location", ["", "http://[", "http://a b/"])
def test_a_redirect_without_a_host_is_reported_too(kv2: World, location: str) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda _: True, 307, when="before", times=99, location=location)
        with pytest.raises(StoreError, match="it redirects, and"):
            client(kv2, proxy.address).read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) == 2


def test_a_named_leader_whose_scheme_is_wrong_is_final_for_who_points_to_it(kv2: World) -> None:
    leader = kv2.vault.address.replace("http:", "https:")
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda _: True, 307, when="before", times=99, location=leader)
        with pytest.raises(StoreError, match=r"plain HTTP|does not respond"):
            client(kv2, f"{proxy.address},{leader}").read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) <= 3


def test_a_login_that_fails_by_its_credential_is_reported_after_two_tries(kv2: World) -> None:
    environ = {"KLEARSTACK_VAULT_AUTH": "jwt", "VAULT_JWT": "x"}
    with FaultProxy(kv2.vault.address) as proxy:
        body = b'{"errors":["error validating token: malformed"]}'
        proxy.answer(lambda line: "/login" in line, 500, when="before", times=99, body=body)
        with pytest.raises(StoreError, match="failed at the jwt login"):
            client(kv2, proxy.address, **environ).read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":["local node not active but active cluster node not found"]}',
        b"<html>",
        b"{}",
        b'{"errors":5}',
    ],
)
def test_a_login_at_a_node_without_a_leader_is_retried(kv2: World, body: bytes) -> None:
    environ = {"KLEARSTACK_VAULT_AUTH": "jwt", "VAULT_JWT": "x"}
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: "/login" in line, 500, when="before", times=4, body=body)
        with pytest.raises(StoreRefusedError):
            client(kv2, proxy.address, **environ).read(2, kv2.mount, PATH, Deadline(30))
        assert len(proxy.requests) == 5


@pytest.mark.usefixtures("measured")
def test_a_value_that_vault_cannot_read_is_overwritten_if_it_is_managed(kv2: World) -> None:
    kv2.store()
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: line.startswith("GET") and DATA in line, 500, when="before", times=99)
        begun = time.monotonic()
        kv2.get("--vault-addr", proxy.address)
        assert time.monotonic() - begun < 20
    assert kv2.endpoint.mints == 2
    version = kv2.vault.admin.secrets.kv.v2.read_secret_metadata(PATH, mount_point=kv2.mount)["data"]
    assert version["current_version"] == 2


@pytest.mark.parametrize("status", [403, 200])
def test_any_other_value_that_vault_cannot_read_is_named(kv2: World, status: int) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: line.startswith("GET") and DATA in line, 500, when="before", times=99)
        proxy.answer(lambda line: "GET" in line and "/metadata/" in line, status, when="before", times=99)
        done = kv2.run("get", VAULT_ADDR=proxy.address)
        assert sum(DATA in line for line in proxy.requests) <= 6
    assert done.returncode == 69
    assert f"cannot read {kv2.mount}/{PATH}" in done.stderr
    assert f"vault kv metadata delete -mount={kv2.mount} {PATH}" in done.stderr


def test_while_no_path_can_be_read_it_is_an_outage(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: "/data/" in line, 500, when="before", times=8)
        assert client(kv2, proxy.address).read(2, kv2.mount, PATH, Deadline(30)).secret is None


def test_a_credential_file_that_is_empty_for_a_moment_is_read_again(kv2: World, tmp_path: Path) -> None:
    policy = f'path "{kv2.mount}/*" {{ capabilities = ["read"] }}'
    file = tmp_path / "token"
    file.write_text("hvs.old")
    one = client(kv2, kv2.vault.address, VAULT_TOKEN_FILE=str(file))
    file.write_text("")
    later = threading.Timer(0.7, lambda: file.write_text(kv2.vault.policy_token(policy)))
    later.start()
    assert one.read(2, kv2.mount, PATH, Deadline(30)).secret is None
    later.join()


def test_a_credential_file_that_stays_empty_is_named(kv2: World, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hvs.old")
    one = client(kv2, kv2.vault.address, VAULT_TOKEN_FILE=str(file))
    file.unlink()
    with pytest.raises(StoreRefusedError, match="credentials cannot be read again: VAULT_TOKEN"):
        one.read(2, kv2.mount, PATH, Deadline(1))


def test_a_try_that_the_deadline_cuts_short_does_not_hide_the_reason(kv2: World) -> None:
    known = SettingsError("VAULT_TOKEN cannot be read.")
    known.settings = frozenset({"vault_token"})
    tries = iter([SettingsError("It could not be read in time."), known])

    def reread(_: Deadline) -> Settings:
        raise next(tries, SettingsError("It could not be read in time."))

    settings = Settings.from_env(kv2.environ | {"VAULT_TOKEN": "hvs.old"})
    with closing(Transport(settings.vault_addr, ServerClock(), timeout=5)) as transport:
        one = VaultClient(transport, settings, reread)
        with pytest.raises(StoreRefusedError, match="cannot be read again: VAULT_TOKEN cannot be read"):
            one.read(2, kv2.mount, PATH, Deadline(3))


def test_a_denied_request_leads_to_one_new_login(kv2: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault_plugin.vault.auth.NEW_POLICIES", 0.0)
    role_id, secret_id, _ = kv2.vault.approle('path "sys/none" { capabilities = ["read"] }')
    environ = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    with FaultProxy(kv2.vault.address) as proxy:
        one = client(kv2, proxy.address, **environ)
        for _ in range(5):
            with pytest.raises(StoreRefusedError, match="Vault denied the read"):
                one.read(2, kv2.mount, PATH, Deadline(30))
        assert sum("/login" in line for line in proxy.requests) == 2


def test_a_deleted_mount_is_named(kv2: World) -> None:
    kv2.vault.admin.sys.disable_secrets_engine(kv2.mount)
    one = client(kv2, kv2.vault.address)
    with pytest.raises(MountMissingError, match=kv2.mount):
        one.read(2, kv2.mount, PATH, Deadline(30))
