"""ansible-core in several versions, each installed once per run."""

from pathlib import Path

import pytest
from support.ansible import CORES, Ansible, built_wheel
from support.environments import environment
from support.once import made_once


@pytest.fixture(scope="session")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory)


@pytest.fixture(params=CORES)
def ansible(
    request: pytest.FixtureRequest, our_wheel: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Ansible:
    """Each version in turn."""
    return _installed(request.param, our_wheel, tmp_path_factory, tmp_path)


@pytest.fixture
def newest(our_wheel: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Ansible:
    """The newest version, for what does not depend on it."""
    return _installed(CORES[-1], our_wheel, tmp_path_factory, tmp_path)


def _installed(core: str, wheel: Path, factory: pytest.TempPathFactory, folder: Path) -> Ansible:
    packages = (f"ansible-core=={core}.*", str(wheel))
    venv = made_once(factory, f"ansible-core-{core}", lambda made: environment(made, *packages))
    return Ansible(core, venv / "bin", folder)
