"""ansible-core in several versions, once per run each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ansible import CORES, Ansible, install, wheel


@pytest.fixture(scope="session")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def cores(our_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Where the programs of each version are."""
    folder = tmp_path_factory.mktemp("cores")
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda core: install(core, our_wheel, folder / core), CORES)
        yield dict(zip(CORES, found, strict=True))


@pytest.fixture(params=CORES)
def ansible(request: pytest.FixtureRequest, cores: dict[str, Path], tmp_path: Path) -> Ansible:
    """Each version in turn."""
    return Ansible(request.param, cores[request.param], tmp_path)


@pytest.fixture
def newest(cores: dict[str, Path], tmp_path: Path) -> Ansible:
    """The newest version, for what does not depend on it."""
    return Ansible(CORES[-1], cores[CORES[-1]], tmp_path)
