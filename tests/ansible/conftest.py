"""ansible-core in several versions, each installed once per run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.ansible import CORES, Ansible, built_wheel, installed
from support.cli import World
from support.vault import Vault

from vault_plugin.demo.simulator import Simulator


@pytest.fixture(scope="session")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory)


def marks(core: str) -> list[pytest.MarkDecorator]:
    return [] if core in {CORES[0], CORES[-1]} else [pytest.mark.between]


@pytest.fixture(params=[pytest.param(core, marks=marks(core)) for core in CORES])
def ansible(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Ansible:
    """Each version in turn."""
    return installed(request.param, tmp_path_factory, tmp_path)


@pytest.fixture
def newest(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Ansible:
    """The newest version, for what does not depend on it."""
    return installed(CORES[-1], tmp_path_factory, tmp_path)


@pytest.fixture
def another(bao: Vault, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """As many worlds as are asked for, each with an endpoint and a mount of its own, for the scenes of one play."""
    with ExitStack() as stack:
        yield lambda: World(stack.enter_context(Simulator()), bao, bao.mount("v2"), tmp_path)
