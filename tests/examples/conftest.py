"""What the examples are run with: our wheel as their users install it, and a Vault that is theirs alone."""

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import World, kept
from support.environments import environment, wheel
from support.once import made_once
from support.vault import Vault, configure
from uv import find_uv_bin

from vault_plugin.demo.embedded import binary, openbao
from vault_plugin.demo.simulator import Simulator

ROOT = Path(__file__).parents[2]
WHEEL = Path(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["klearstack-vault"][
        "package"
    ]
).name
_PIP = """\
#!/bin/sh -eu
for one; do
  shift
  case $one in
    ./{wheel}) cmp "$one" "$PIP_FIND_LINKS/{wheel}" || exit 1; one=klearstack-vault ;;
  esac
  set -- "$@" "$one"
done
exec {command} "$@" {where}
"""


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of this checkout and of all that it needs, so that pip needs no index."""

    def build(folder: Path) -> None:
        ours = str(wheel(ROOT, folder))
        _quietly(sys.executable, "-m", "pip", "wheel", "--quiet", f"--wheel-dir={folder}", ours)

    return made_once(tmp_path_factory, "wheelhouse", build)


@pytest.fixture(scope="session")
def ours(wheelhouse: Path) -> Path:
    """Our wheel, by the name that the examples install it by."""
    return wheelhouse / WHEEL


@pytest.fixture(scope="session")
def machine(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine where pip installs from the wheelhouse; `bao` goes by the name of `vault`.

    After pip has shown that it can, jobs find uv's in its place: it does the same in a twentieth of the time. It takes a
    wheel for what was installed from it, if it is there: jobs that run side by side must not install it anew.
    """

    def set_up(folder: Path) -> None:
        programs = environment(folder / "venv", "pip")
        (programs / "vault").symlink_to(binary())
        # Before jobs that run side by side would install it at the same time into what they share here.
        pip = programs / "pip"
        _quietly(str(pip), "install", "--quiet", str(wheelhouse / WHEEL), env=environ(folder))
        where = [f"--python={programs}/python", "--no-config", "--no-index", f"--find-links={wheelhouse}"]
        pip.write_text(
            _PIP.format(wheel=WHEEL, command=shlex.join([find_uv_bin(), "pip"]), where=shlex.join(where)),
            encoding="utf-8",
        )

    def environ(folder: Path) -> dict[str, str]:
        return {
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(folder / "venv/bin"), os.environ["PATH"]]),
            "PIP_CONFIG_FILE": os.devnull,  # the user's, which may name indexes
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(wheelhouse),
            "PIP_NO_INDEX": "1",
        }

    return environ(made_once(tmp_path_factory, "machine", set_up))


@pytest.fixture(scope="session")
def server() -> Iterator[Vault]:
    """An OpenBao for the examples' tests of this worker."""
    with openbao() as server:
        vault = Vault(server.address, server.root_token)
        yield vault
        vault.close()


@pytest.fixture
def own(server: Vault, tmp_path: Path) -> Iterator[World]:
    """An endpoint, and an OpenBao with nothing but an empty KV v2 at secret/, as the examples have it."""
    system = server.admin.sys
    for method in system.list_auth_methods()["data"].keys() - {"token/"}:
        system.disable_auth_method(method)
    for policy in {*system.list_policies()["data"]["policies"]} - {"default", "root"}:
        system.delete_policy(policy)
    system.disable_secrets_engine("secret")
    system.enable_secrets_engine("kv", path="secret", options={"version": "2"})
    configure(server.admin, "secret", {})
    with Simulator() as endpoint:
        yield World(endpoint, server, "secret", tmp_path)


def _quietly(*command: str, env: dict[str, str] | None = None) -> None:
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environ = kept() | pip | (env or {})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
