"""The request for an ID token, with any response, in this process."""

from collections.abc import Iterator

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy
from support.oidc import Platform
from support.ports import own_port

from vault_plugin.app import connect
from vault_plugin.errors import SettingsError, StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import id_token

ID_TOKEN = b'{"count": 1, "value": "a.b.c"}'


@pytest.fixture
def github(kv2: World) -> Iterator[FaultProxy]:
    """A server whose responses tests give."""
    with FaultProxy(kv2.vault.address) as proxy:
        yield proxy


def job(world: World, address: str, proxy: str | None = None, **flags: str) -> Settings:
    own = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{address}/id?api-version=2", "VAULT_TOKEN": ""}
    environ = world.environ | own | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request"}
    environ |= {"HTTPS_PROXY": proxy} if proxy else {}
    return Settings.from_env(environ, auth="jwt", **flags)


def any_line(_: str) -> bool:
    return True


def test_a_busy_server_is_asked_again_until_it_responds(kv2: World, github: FaultProxy) -> None:
    slept: list[float] = []
    for status, body in ((500, b"{}"), (429, b""), (200, b"{}"), (200, b"<html>"), (200, ID_TOKEN)):
        github.answer(any_line, status, body=body, when="before", times=1)
    found = id_token.requested(job(kv2, github.address, auth_audience="a&b"), Deadline(60), slept.append)
    assert (found, len(slept)) == (Secret("a.b.c"), 4)
    assert {line.split()[1] for line in github.requests} == {"/id?api-version=2&audience=a%26b"}
    assert all(b"Authorization: Bearer request\r\n" in head for head in github.heads)


@pytest.mark.parametrize("status", [302, 401, 403, 404])
def test_a_rejection_is_final(kv2: World, github: FaultProxy, status: int) -> None:
    github.answer(any_line, status, when="before", times=1)
    with pytest.raises(StoreRefusedError, match=rf"GitHub Actions at \S+: status {status}\.") as caught:
        id_token.requested(job(kv2, github.address), Deadline(60))
    assert "request token expires" in caught.value.hint
    assert "request\r" not in str(caught.value)


def test_without_a_response_it_is_an_outage_and_a_wrong_scheme_a_setting(kv2: World) -> None:
    with pytest.raises(StoreError, match="connection refused") as caught:
        id_token.requested(job(kv2, f"http://127.0.0.1:{own_port()}"), Deadline(0.1))
    assert caught.value.retryable
    with pytest.raises(StoreSettingsError):
        id_token.requested(job(kv2, kv2.vault.address.replace("http:", "https:")), Deadline(30))


def test_it_is_requested_through_the_proxy_and_never_without_tls(kv2: World, github: FaultProxy) -> None:
    github.answer(any_line, 403, when="before", times=99)
    with pytest.raises(StoreError, match=r"GitHub Actions at actions\.example: "):
        id_token.requested(job(kv2, "https://actions.example", github.address), Deadline(1))
    assert {line.split()[1] for line in github.requests} == {"actions.example:443"}
    with pytest.raises(SettingsError, match="ACTIONS_ID_TOKEN_REQUEST_URL must begin with https://"):
        job(kv2, "http://actions.example")


def test_a_login_requests_it(kv2: World, github: FaultProxy) -> None:
    platform = Platform()
    body = b'{"value": "%s"}' % platform.issue().encode()
    github.answer(any_line, 200, body=body, when="before", times=1)
    config = {"jwt_validation_pubkeys": platform.public_key}
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
    mount = f"jwt-{kv2.mount}"
    settings = job(kv2, github.address, auth_mount=mount, auth_role="ci")
    with kv2.vault.logins("jwt", mount, config, role, kv2.mount), connect(settings) as broker:
        assert broker.get(settings.identity()).access.token.value.reveal() == kv2.endpoint.issued[1]
