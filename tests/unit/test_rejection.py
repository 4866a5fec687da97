"""A rejected login is not sent again with the same credentials, which would lock the account in Vault."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support.fakes import response

from vault_plugin.bulk.scope import Scope, scope_of
from vault_plugin.errors import StoreRefusedError
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault import auth
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.connections import Response
from vault_plugin.vault.transport import Transport


class Vault:
    """A transport to a Vault that knows one password; the passwords that it was sent."""

    quota = SimpleNamespace(gap=0.0)

    def __init__(self, password: str) -> None:
        self.password = password
        self.sent: list[str] = []
        self.revoked = False

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
        **_limits: object,
    ) -> Response:
        if "/login" not in path:
            unknown = self.revoked and path.startswith("/v1/kv")
            return (
                response(403, {"errors": ["permission denied"]}) if unknown else response(200, {"data": {}})
            )
        self.sent.append(json.loads(body or b"{}").get("password", "?"))
        if self.sent[-1] != self.password:
            return response(400, {"errors": ["invalid username or password"]})
        self.revoked = False
        return response(200, {"auth": {"client_token": f"s.{len(self.sent)}"}})


class World:
    """A client whose password is in a file."""

    def __init__(self, folder: Path, vault: Vault, **more: str) -> None:
        self.file = folder / "password"
        self.file.write_text("wrong")
        self.vault = vault
        environ = {
            "KLEARSTACK_URL": "https://api.example",
            "VAULT_ADDR": "https://vault.example",
            "KLEARSTACK_VAULT_AUTH": "userpass",
            "KLEARSTACK_VAULT_AUTH_USERNAME": "ci",
            "VAULT_PASSWORD_FILE": str(self.file),
            **more,
        }

        def gather(deadline: Deadline) -> Settings:
            return Settings.for_many(environ, deadline=f"{deadline.left():.3f}")

        self.client = VaultClient(cast(Transport, vault), gather(Deadline(30)), gather)

    def read(self) -> None:
        self.client.read(1, "kv", "p", Deadline(30))

    def rejection(self) -> StoreRefusedError:
        with pytest.raises(StoreRefusedError, match="rejected the") as caught:
            self.read()
        return caught.value


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., World]:
    return lambda **more: World(tmp_path, Vault("right"), **more)


def test_a_rejected_login_is_sent_once_and_raised_for_all(made: Callable[..., World]) -> None:
    world = made()
    first, *others = [world.rejection() for _ in range(4)]
    assert world.vault.sent == ["wrong"]
    assert {(str(one), one.hint) for one in others} == {(str(first), first.hint)}
    assert len({id(one) for one in (first, *others)}) == 4
    assert {scope_of(one) for one in (first, *others)} == {Scope.VAULT}


def test_a_file_with_another_password_leads_to_a_new_login_at_once(made: Callable[..., World]) -> None:
    world = made()
    world.rejection()
    world.file.write_text("also wrong")
    world.rejection()
    world.rejection()
    world.file.write_text("right")
    world.read()
    assert world.vault.sent == ["wrong", "also wrong", "right"]


def test_while_the_file_cannot_be_read_it_stays_rejected(made: Callable[..., World]) -> None:
    world = made()
    world.rejection()
    world.file.unlink()
    world.rejection()
    assert world.vault.sent == ["wrong"]


def test_after_a_while_it_is_tried_again(made: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "LOGIN_EVERY", 0.0)
    world = made()
    world.rejection()
    world.vault.password = "wrong"
    world.read()
    assert world.vault.sent == ["wrong", "wrong"]


def test_a_login_that_ends_is_made_again_once_too(made: Callable[..., World]) -> None:
    world = made()
    world.vault.password = "wrong"
    world.read()
    world.vault.password, world.vault.revoked = "changed", True
    world.rejection()
    world.rejection()
    assert world.vault.sent == ["wrong", "wrong"]


def test_a_certificate_whose_file_may_have_changed_is_sent_again(
    made: Callable[..., World], tmp_path: Path
) -> None:
    pem = tmp_path / "pem"
    pem.write_text("")
    world = made(KLEARSTACK_VAULT_AUTH="cert", VAULT_CLIENT_CERT=str(pem), VAULT_CLIENT_KEY=str(pem))
    assert [scope_of(world.rejection()) for _ in range(2)] == [Scope.VAULT] * 2
    assert world.vault.sent == ["?", "?"]
