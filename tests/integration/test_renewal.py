"""The Vault token is valid for as long as the process that uses it lives, at a real OpenBao."""

import logging
import time
from contextlib import ExitStack

import pytest
from support.cli import World
from support.fault_proxy import FaultProxy
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.broker import Broker
from vault_plugin.settings import Settings
from vault_plugin.vault import renewal

PERIOD = 5  # seconds


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "FIRST_LOOK", 0.1)


def policy(world: World) -> str:
    return f'path "{world.mount}/*" {{ capabilities = ["create", "update", "read"] }}'


def opened(stack: ExitStack, world: World, user: str, **environ: str) -> tuple[Broker, Settings]:
    """A broker for that user, as `watch` has it."""
    given = {**world.environ, "VAULT_TOKEN": "", "KLEARSTACK_USER_ID": user, **environ}
    settings = Settings.from_env(given)
    return stack.enter_context(connect(settings, bulk=True)), settings


def periodic(world: World, **more: object) -> str:
    world.vault.admin.sys.create_or_update_policy(world.mount, policy(world))
    made: str = world.vault.admin.auth.token.create(policies=[world.mount], period=f"{PERIOD}s", **more)[
        "auth"
    ]["client_token"]
    return made


def test_a_periodic_token_and_one_of_a_login_outlive_their_ttl_and_a_given_one_is_not_revoked(
    kv2: World, caplog: pytest.LogCaptureFixture
) -> None:
    given = periodic(kv2)
    role_id, secret_id, _ = kv2.vault.approle(policy(kv2), secret_id_num_uses=1, token_period=f"{PERIOD}s")
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    with ExitStack() as stack, caplog.at_level(logging.INFO, "vault_plugin.vault"):
        all_of_them = [opened(stack, kv2, "26", VAULT_TOKEN=given), opened(stack, kv2, "27", **login)]
        for broker, settings in all_of_them:
            broker.get(settings.identity())
        time.sleep(1.6 * PERIOD)
        for broker, settings in all_of_them:
            broker.get(settings.identity(), renew=True)
    assert "rejected the approle login" not in caplog.text
    assert kv2.vault.admin.auth.token.lookup(given)["data"]["ttl"] <= PERIOD


def test_a_denied_renewal_is_no_error_while_the_token_is_valid(
    kv2: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = periodic(kv2, no_default_policy=True)
    with (
        ExitStack() as stack,
        caplog.at_level(logging.INFO, "vault_plugin.vault"),
        FaultProxy(kv2.vault.address) as proxy,
    ):
        broker, settings = opened(stack, kv2, "26", VAULT_TOKEN=token, VAULT_ADDR=proxy.address)
        until(lambda: "the Vault token cannot be renewed (Forbidden)" in caplog.text)
        broker.get(settings.identity())
        assert [line.split()[1] for line in proxy.requests if "/auth/" in line] == [
            "/v1/auth/token/lookup-self",
            "/v1/auth/token/renew-self",
        ]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_renewal_that_fails_is_repeated(
    kv2: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "RETRY_AFTER", 0.05)
    monkeypatch.setattr(renewal, "REQUEST", 0.3)
    monkeypatch.setattr(renewal, "RENEW_AFTER", 0.01)
    token = periodic(kv2)
    with (
        ExitStack() as stack,
        caplog.at_level(logging.INFO, "vault_plugin.vault"),
        FaultProxy(kv2.vault.address) as proxy,
    ):
        proxy.reset(lambda line: "/renew-self" in line, when="before", times=3)
        broker, settings = opened(stack, kv2, "26", VAULT_TOKEN=token, VAULT_ADDR=proxy.address)
        until(lambda: sum("/renew-self" in line for line in proxy.requests) > 3)
        assert proxy.all_happened()
        broker.get(settings.identity())


def test_an_unwrapped_secret_id_is_kept_for_the_next_login_also_of_another_target(kv2: World) -> None:
    role_id, _, _ = kv2.vault.approle(policy(kv2), f"a-{kv2.mount}")
    roles = kv2.vault.admin.auth.approle
    (name,) = roles.list_roles(mount_point=f"a-{kv2.mount}")["data"]["keys"]
    wrapped = roles.generate_secret_id(name, mount_point=f"a-{kv2.mount}", wrap_ttl="60s")["wrap_info"]
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "KLEARSTACK_VAULT_AUTH_MOUNT": f"a-{kv2.mount}"}
    login |= {"VAULT_ROLE_ID": role_id, "VAULT_WRAPPED_SECRET_ID": wrapped["token"]}
    before = kv2.vault.accessors()
    with ExitStack() as stack:
        broker, settings = opened(stack, kv2, "26", **login)
        broker.get(settings.identity())
        for accessor in kv2.vault.accessors() - before:
            kv2.vault.admin.auth.token.revoke_accessor(accessor)
        broker.get(settings.identity(), renew=True)
        other, settings = opened(stack, kv2, "27", **login)
        other.get(settings.identity())
    assert kv2.vault.accessors() <= before
