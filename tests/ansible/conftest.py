"""ansible-core in several versions, each installed once per run."""

from pathlib import Path

import pytest
from support.ansible import CORES, Ansible, built_wheel, installed


@pytest.fixture(scope="session")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory)


@pytest.fixture(params=CORES)
def ansible(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Ansible:
    """Each version in turn."""
    return installed(request.param, tmp_path_factory, tmp_path)


@pytest.fixture
def newest(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Ansible:
    """The newest version, for what does not depend on it."""
    return installed(CORES[-1], tmp_path_factory, tmp_path)
