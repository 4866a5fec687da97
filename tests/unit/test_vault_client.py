"""VaultClient's rare cases: a path that cannot be read, and logins that are denied, replaced or waited for."""

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from support.fakes import response

from vault_plugin.errors import MountMissingError, StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault.auth import NEW_POLICIES
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.connections import Response
from vault_plugin.vault.hvac_errors import capability
from vault_plugin.vault.retries import PermanentError, Verdict
from vault_plugin.vault.transport import Transport, TransportError

LOGIN = "/v1/auth/approle/login"
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
UNKNOWN = {"errors": ["permission denied"]}  # the token, that is


class Vault:
    """What VaultClient uses of a transport: logins succeed, and the rest gets the given responses."""

    quota = SimpleNamespace(gap=0.0)
    only_denied = False

    def __init__(self, *replies: Response, other: Response | TransportError | None = None) -> None:
        self.logins: list[StoreError] = []  # The errors of the next ones.
        self.before_response: Callable[[], None] = lambda: None
        self.sent_once: list[tuple[str, str, dict[str, str]]] = []
        self.paths: list[str] = []
        self.permanent: list[bool] = []
        self._replies = list(replies)
        self._other = other

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
        *,
        is_permanent: Callable[[Response], bool],
        **_limits: object,
    ) -> Response:
        self.paths.append(path)
        if path.endswith("/login"):
            if self.logins:
                raise self.logins.pop()
            return response(200, {"auth": {"client_token": "s.first"}})
        reply = self._replies.pop(0)
        self.before_response()
        if reply.status == 500:
            self.permanent.append(is_permanent(reply))
            raise PermanentError("status 500")
        return reply

    def once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Response:
        self.sent_once.append((method, path, dict(headers)))
        if isinstance(self._other, Response):
            return self._other
        raise self._other or TransportError(Verdict("no response"))


def client_of(vault: Vault, namespace: str | None = "ns", auth: str = "approle") -> VaultClient:
    settings = Settings(
        user_id="-",
        company_name="-",
        url="https://api.example",
        vault_addr=("https://vault.example",),
        vault_namespace=namespace,
        auth=auth,
        auth_role="role",
        vault_jwt=Secret("a.b.c"),
        role_id=Secret("role"),
        secret_id=Secret("secret"),
    )
    return VaultClient(cast(Transport, vault), settings)


def token_of(client: VaultClient) -> str:
    return str(client.login._token)


@pytest.mark.parametrize(
    ("namespace", "header"), [("ns", {"X-Vault-Namespace": "ns"}), (None, {})], ids=["namespace", "none"]
)
def test_another_path_is_read_in_the_same_namespace(namespace: str | None, header: dict[str, str]) -> None:
    vault = Vault(response(500, {"errors": ["x"]}), other=response(404, {"errors": []}))
    with pytest.raises(StoreError):
        client_of(vault, namespace).read(1, "kv", "p/x", Deadline(5))
    expected = {"X-Vault-Token": "s.first", "X-Vault-Request": "true", **header}
    assert vault.sent_once == [("GET", "/v1/kv/p/x.none", expected)]
    assert vault.permanent == [True]


def test_a_mount_that_does_not_respond_for_another_path_leaves_the_failure_open() -> None:
    vault = Vault(response(500, {"errors": ["x"]}), other=TransportError(Verdict("reset")))
    with pytest.raises(StoreError):
        client_of(vault).read(1, "kv", "p/x", Deadline(5))
    assert vault.permanent == [False]


def test_what_kv_v1_cannot_read_is_to_be_deleted_and_no_metadata_is_read() -> None:
    vault = Vault(response(500, {"errors": ["x"]}), other=response(404, {"errors": []}))
    with pytest.raises(StoreError, match=r"cannot read kv/p/x \(status 500\)") as caught:
        client_of(vault).read(1, "kv", "p/x", Deadline(5))
    assert caught.value.hint == "Delete the secret there: vault kv delete -mount=kv p/x"
    assert caught.value.for_all is False
    assert vault.paths == [LOGIN, "/v1/kv/p/x"]


@pytest.mark.parametrize("refusal", [DENIED, UNKNOWN], ids=["by a policy", "as unknown"])
def test_a_denied_request_is_repeated_with_the_login_that_another_thread_made_meanwhile(
    refusal: object,
) -> None:
    vault = Vault(response(403, refusal), response(200, {"data": {"token": "t"}}))
    client = client_of(vault)

    def replace() -> None:
        client.login._token = "s.other"

    vault.before_response = replace
    assert client.read(1, "kv", "p/x", Deadline(5)) is not None
    assert vault.paths == [LOGIN, "/v1/kv/p/x", "/v1/kv/p/x"]
    assert token_of(client) == "s.other"


def test_a_login_that_fails_after_a_denied_request_is_logged_and_the_denial_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vault = Vault(response(403, DENIED))
    client = client_of(vault)

    def age() -> None:
        client.login._made -= 2 * NEW_POLICIES
        vault.logins.append(StoreError("Vault is away."))

    vault.before_response = age
    with (
        caplog.at_level(logging.INFO, "vault_plugin.vault"),
        pytest.raises(StoreRefusedError, match=r"denied the read \(status 403\)"),
    ):
        client.read(1, "kv", "p/x", Deadline(5))
    assert caplog.messages == [
        "Vault denied GET /v1/kv/p/x: the policy must grant read there",
        "the login to Vault after a denied request failed: Vault is away.",
    ]
    assert vault.paths == [LOGIN, "/v1/kv/p/x", LOGIN]
    assert token_of(client) == "s.first"


def test_no_thread_waits_for_the_login_of_another_thread_longer_than_the_deadline() -> None:
    vault = Vault()
    client = client_of(vault)
    with (
        client.login._lock,
        pytest.raises(StoreError, match="login to Vault did not finish before the deadline"),
    ):
        client.read(1, "kv", "p/x", Deadline(0))
    assert vault.paths == []


def test_a_path_that_vault_does_not_have_is_a_rejected_write() -> None:
    vault = Vault(response(404, {"errors": []}))
    with pytest.raises(
        StoreRefusedError, match=r"rejected the write: it has no such path \(status 404\)"
    ) as caught:
        client_of(vault).write_v1("kv", "p/x", {"token": "t"}, Deadline(5))
    assert caught.value.hint == "Check --mount (KLEARSTACK_VAULT_MOUNT)."


def test_a_denied_wrapping_names_the_path_that_the_policy_lacks() -> None:
    client = client_of(Vault(response(403, DENIED)))
    with pytest.raises(StoreRefusedError, match="denied the wrapping of the token") as caught:
        client.wrap({}, 60, Deadline(10), lambda: True)
    assert "update on sys/wrapping/wrap" in caught.value.hint


def test_a_mount_that_vault_has_no_path_for_is_missing() -> None:
    with pytest.raises(MountMissingError, match="mounted at kv"):
        client_of(Vault(response(404, {"errors": []}))).kv_version("kv", Deadline(5))


def test_a_version_that_kv_v2_cannot_read_has_its_metadata_still() -> None:
    version = {"created_time": "2026-11-26T00:00:00Z", "deletion_time": "", "destroyed": False}
    about = {"current_version": 3, "custom_metadata": {"managed-by": "x"}, "versions": {"3": version}}
    vault = Vault(
        response(500, {"errors": ["x"]}), response(200, {"data": about}), other=response(404, {"errors": []})
    )
    found = client_of(vault).read(2, "kv", "p/x", Deadline(5))
    metadata = version | {"version": 3, "custom_metadata": {"managed-by": "x"}}
    assert found.secret == {"data": None, "metadata": metadata}
    assert found.took >= 0


@pytest.mark.parametrize("auth", ["approle", "jwt", "kubernetes"])
def test_each_login_is_made_once_and_revoked_at_the_end(auth: str) -> None:
    vault = Vault(response(200, {"data": {}}), response(200, {"data": {}}), response(204, None))
    client = client_of(vault, auth=auth)
    client.close(Deadline(5))  # There is no login yet.
    for _ in range(2):
        client.read(1, "kv", "p/x", Deadline(5))
    client.close(Deadline(5))
    read = "/v1/kv/p/x"
    assert vault.paths == [f"/v1/auth/{auth}/login", read, read, "/v1/auth/token/revoke-self"]


def test_a_token_that_cannot_be_revoked_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")
    client = client_of(Vault(response(200, {"data": {}}), response(403, DENIED)))
    client.read(1, "kv", "p/x", Deadline(5))
    client.close(Deadline(5))
    assert caplog.messages == ["the token of the Vault login was not revoked (Forbidden); it expires"]


def test_what_a_policy_has_to_give_is_named() -> None:
    for method, path, needed in (
        ("GET", "/v1/secret/data/x", "read"),
        ("POST", "/v1/secret/data/x", "update"),
        ("PUT", "/v1/secret/metadata/x", "create and update"),
        ("POST", "/v1/kv/x", "create and update"),
        ("DELETE", "/v1/secret/metadata/x", "delete"),
        ("LIST", "/v1/secret/metadata/", "list"),
        ("GET", "/v1/sys/internal/ui/mounts/secret", "any capability below the mount"),
        ("POST", "/v1/sys/wrapping/wrap", "update"),
    ):
        assert capability(method, path) == needed, (method, path)


def test_kv_v2_where_v1_was_expected_is_reported_by_a_read() -> None:
    body = {"data": None, "warnings": ["Invalid path for a versioned K/V secrets engine. See the API docs"]}
    with pytest.raises(StoreSettingsError, match="The KV secrets engine at kv is not version 1"):
        client_of(Vault(response(404, body))).read(1, "kv", "p/x", Deadline(5))


@pytest.mark.parametrize("status", [400, 431])
def test_a_token_that_is_too_long_for_a_header_is_named(status: int) -> None:
    body = {"errors": ["authentication token exceeds maximum allowed header size"]}
    with pytest.raises(StoreRefusedError, match="longer than the server accepts in a header"):
        client_of(Vault(response(status, body))).read(1, "kv", "p/x", Deadline(5))
