"""What the examples are run with: our wheel as their users install it, and a Vault that is theirs alone."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import World, kept
from support.once import made_once
from support.vault import Vault

from vault_plugin.embedded import binary, openbao
from vault_plugin.simulator import Simulator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of this checkout and of all that it needs, so that pip needs no index."""

    def build(folder: Path) -> None:
        _quietly(sys.executable, "-m", "pip", "wheel", "--quiet", f"--wheel-dir={folder}", str(ROOT))

    return made_once(tmp_path_factory, "wheelhouse", build)


@pytest.fixture(scope="session")
def machine(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine where pip installs from the wheelhouse; `bao` goes by the name of `vault`."""

    def set_up(folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        (folder / "venv/bin/vault").symlink_to(binary())
        # Before jobs that run side by side would install it at the same time into what they share here.
        pip = str(folder / "venv/bin/pip")
        _quietly(pip, "install", "--quiet", "klearstack-vault", env=environ(folder))

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


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """An endpoint, and an OpenBao with KV v2 at secret/, as the examples have it."""
    with Simulator() as endpoint, openbao() as server:
        vault = Vault(server.address, server.root_token)
        yield World(endpoint, vault, "secret", tmp_path)
        vault.close()


def _quietly(*command: str, env: dict[str, str] | None = None) -> None:
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environ = kept() | pip | (env or {})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
