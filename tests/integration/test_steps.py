"""What -v and -vv log of a call against a real Vault, and what a refusal is called."""

import json
import logging
import re
import threading
from typing import Any

import pytest
from support.cli import World, run
from support.leaks import leaked
from support.oidc import Platform
from support.vault import Vault
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.errors import StoreRefusedError
from vault_plugin.settings import Settings

READ = r"read {place}: no token"
FOUND = r"read {place}: a token that expires at \S+Z, version 1, deletion_time \S+Z"
WROTE = r"wrote {place}: a token that expires at \S+Z, version 1, deletion_time \S+Z"

READS = 'path "{mount}/data/*" {{ capabilities = ["read"] }}'
MARKS = 'path "{mount}/metadata/*" {{ capabilities = ["create", "update"] }}'


def get(world: World, **environ: str) -> str:
    settings = Settings.from_env(world.environ | environ)
    with connect(settings) as broker:
        return broker.get(settings.identity()).source


def place(world: World, kind: str = "access") -> str:
    return f"{world.mount}/klearstack/Acme/26/{kind}"


def test_each_step_of_a_cold_and_a_warm_call_is_logged(kv2: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")
    assert get(kv2) == "endpoint"
    access, refresh = place(kv2), place(kv2, "refresh")
    expected = [
        "no stored token is used: none was found with enough lifetime left",
        READ.format(place=access),
        READ.format(place=refresh),
        rf"minting at {kv2.endpoint.url}/access/\S+",
        r"minted: an access token for \d+ s, a refresh token for \d+ s",
        WROTE.format(place=refresh),
        WROTE.format(place=access),
    ]
    steps = iter(caplog.messages)
    assert [step for step in expected if not any(re.fullmatch(step, message) for message in steps)] == []
    caplog.clear()
    assert get(kv2) == "vault"
    assert [re.sub(r"\d+ s", "N s", message) for message in caplog.messages[1:]] == [
        "using the stored token, which is valid for another N s"
    ]
    assert re.fullmatch(FOUND.format(place=access), caplog.messages[0])


def test_a_warm_get_prints_its_steps_with_v_and_its_exchange_with_vv(kv2: World) -> None:
    kv2.store()
    first, second = (kv2.run("get", flag) for flag in ("-v", "-vv"))
    assert (first.returncode, len(first.stderr.splitlines())) == (0, 2)
    assert "/v1/" not in first.stderr
    exchanges = re.findall(r"DEBUG: (GET /v1/\S+): 200, \d+ ms\n", second.stderr)
    assert exchanges == [f"GET /v1/{kv2.mount}/data/klearstack/Acme/26/access"]
    assert leaked(kv2, kv2.endpoint, first.stderr + second.stderr) == []


def test_each_exchange_is_logged_without_body_and_headers(
    kv2: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)  # of the root logger, too
    get(kv2)
    ours = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    exchanges = [re.sub(r"\d+ ms", "N ms", text) for text in ours if re.match("[A-Z]+ (/|http)", text)]
    data = f"/v1/{kv2.mount}/data/klearstack/Acme/26/access"
    assert f"GET {data}: 404, N ms" in exchanges
    assert f"POST {data}: 200, N ms" in exchanges
    assert any(
        re.fullmatch(r"POST http://\S+/getaccesstokenfromuserid: 200, N ms", text) for text in exchanges
    )
    assert leaked(kv2, kv2.endpoint, caplog.text) == []


def test_who_waits_for_the_lock_says_so(kv2: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")
    kv2.answer_when(
        lambda: "waiting: another caller of this host holds the lock of this identity" in caplog.messages
    )
    callers = [threading.Thread(target=get, args=(kv2,)) for _ in range(2)]
    for caller in callers:
        caller.start()
    until(lambda: not any(caller.is_alive() for caller in callers))
    assert any(re.fullmatch(r"waited \d+\.\d\d s for the lock", message) for message in caplog.messages)
    assert kv2.endpoint.mints == 1


def test_a_response_that_does_not_come_is_logged_too(kv2: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vault_plugin")
    kv2.endpoint.fault, kv2.endpoint.fault_count = "reset", 1
    get(kv2)
    assert any(re.match(r"POST \S+: no response: \S+ reset the connection\.", one) for one in caplog.messages)


@pytest.mark.parametrize(
    ("policy", "request_", "capability"),
    [
        (MARKS, "GET /v1/{mount}/data/{path}", "read"),
        (READS, "POST /v1/{mount}/metadata/{path}", "create and update"),
        (
            f"{READS}\n{MARKS}",
            "POST /v1/{mount}/data/{path}",
            "update",
        ),
        ('path "other/*" {{ capabilities = ["read"] }}', "GET /v1/sys/internal/ui/mounts/{mount}", "any capability below the mount"),
    ],
    ids=["read", "metadata", "write", "mount"],
)  # fmt: skip
def test_a_403_is_named_by_request_and_capability_at_v_alone(
    kv2: World, policy: str, request_: str, capability: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")
    limited = kv2.vault.policy_token(policy.format(mount=kv2.mount))
    with pytest.raises(StoreRefusedError, match=r"Vault denied (the|permission to) ") as caught:
        get(kv2, VAULT_TOKEN=limited)
    assert "-v names the request and the capability" in caught.value.hint
    assert "klearstack/" not in caught.value.line
    asked = request_.format(mount=kv2.mount, path="klearstack/Acme/26/(access|refresh)")
    denied = rf"Vault denied {asked}: the policy must grant {capability} there"
    assert any(re.fullmatch(denied, message) for message in caplog.messages), caplog.messages


HOST = {"KLEARSTACK_HELPER_HOSTS": "git.example", "KLEARSTACK_VAULT_MOUNT": "missing"}
IN_QUERY = json.dumps({"user_id": "26", "company_name": "Acme", "mount": "missing"})
FACES = [
    (("get", "--mount", "missing"), "", "--mount (KLEARSTACK_VAULT_MOUNT)"),
    (("helper", "git", "get"), "protocol=https\nhost=git.example\n\n", "--mount (KLEARSTACK_VAULT_MOUNT)"),
    (("sync", "--mount", "missing", "manifest.csv"), "", "--mount (KLEARSTACK_VAULT_MOUNT)"),
    (("terraform",), IN_QUERY, "`mount` in the query (KLEARSTACK_VAULT_MOUNT)"),
]


def test_a_mount_that_is_missing_for_a_limited_token_is_named_with_both_remedies_by_each_face(
    kv2: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vault answers it as it answers for a mount that the token may not see."""
    monkeypatch.chdir(kv2.home)
    (kv2.home / "manifest.csv").write_text("user_id\n26\n")
    limited = kv2.vault.policy_token('path "other/*" { capabilities = ["read"] }')
    environ = kv2.environ | HOST | {"VAULT_TOKEN": limited}
    for arguments, query, mount in FACES:
        done = run(*arguments, environ=environ, stdin=query)
        assert done.returncode == (5 if arguments[0] == "sync" else 77), arguments
        assert (
            "look at the mount missing, or no secrets engine is mounted at missing: the response is the same for both"
            in done.stderr
        )
        assert "Give the policy of the Vault token access to missing/klearstack (" in done.stderr
        assert f"or check {mount}: `vault secrets list` shows the mounts." in done.stderr, arguments
        assert done.stderr.count("\n") == 1
    assert kv2.endpoint.requests == 0


LOGINS: list[tuple[dict[str, Any] | None, dict[str, Any] | None, str]] = [
    (None, None, "its auth method is mounted, but not configured"),
    ({}, None, "the auth method has no role of that name"),
    ({}, {"bound_audiences": ["other"]}, "the role does not accept the audience of the JWT (aud)"),
    ({}, {"bound_subject": "project:7"}, "the JWT has an audience (aud), but the role has no bound_audiences"),
    ({}, {"bound_audiences": ["vault"], "user_claim": "email"}, "the JWT lacks a claim that the role needs"),
    ({}, {"bound_audiences": ["vault"], "user_claim": "number"}, "a claim of the JWT has another type than the role expects"),
    (
        {},
        {"bound_audiences": ["vault"], "bound_claims": {"sub": "other"}},
        "a claim of the JWT does not have a value that the role accepts",
    ),
]  # fmt: skip


def test_what_a_login_lacks_is_told_apart_and_not_quoted(bao: Vault, kv2: World) -> None:
    platform = Platform()
    jwt = platform.issue(number=5)
    for number, (config, role, reason) in enumerate(LOGINS):
        mount = f"{kv2.mount}-jwt{number}"
        bao.admin.sys.enable_auth_method("jwt", path=mount)
        if config is not None:
            bao.admin.write_data(
                f"auth/{mount}/config", data={"jwt_validation_pubkeys": [platform.public_key]}
            )
        if role is not None:
            about = {"role_type": "jwt", "user_claim": "sub"} | role
            bao.admin.write_data(f"auth/{mount}/role/CANARY", data=about)
        environ = {
            "KLEARSTACK_VAULT_AUTH": "jwt",
            "KLEARSTACK_VAULT_AUTH_MOUNT": mount,
            "KLEARSTACK_VAULT_AUTH_ROLE": "CANARY",
            "VAULT_JWT": jwt,
        }
        with pytest.raises(StoreRefusedError) as caught:
            get(kv2, **environ)
        assert str(caught.value) == f"Vault rejected the jwt login at {mount}: {reason}."
        assert caught.value.hint
        assert "CANARY" not in caught.value.line
        bao.admin.sys.disable_auth_method(mount)
