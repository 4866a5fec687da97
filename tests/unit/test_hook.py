"""The command that runs after a change: when it runs, what it is given, and what happens if it fails."""

import json
import logging
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vault_plugin import children
from vault_plugin.bulk import hook as hook_module
from vault_plugin.bulk.hook import Hook
from vault_plugin.errors import UsageError

PATIENCE = 30  # seconds that a real wait may take before the test has failed


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def noting(log: Path) -> str:
    """A command that writes a line for each of its runs."""
    code = f"import os, sys, json; open({str(log)!r}, 'a').write(json.dumps([sys.argv[1:], dict(os.environ)]) + chr(10))"
    return shlex.join([sys.executable, "-c", code, "one", "two three"])


def runs(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_hook_runs_a_last_time_before_the_end(log: Path) -> None:
    with Hook(noting(log)) as hook:
        hook.call()
    ((arguments, _),) = runs(log)
    assert arguments == ["one", "two three"]


def test_a_hook_that_is_not_called_does_not_run(log: Path) -> None:
    with Hook(noting(log)) as hook:
        pass
    assert not hook._worker.is_alive()
    assert runs(log) == []


def test_a_hook_is_given_no_credential(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    withheld = (
        "VAULT_TOKEN",
        "BAO_SECRET_ID",
        "KLEARSTACK_USER_ID",
        "KLEARSTACK_COMPANY_NAME",
        "VAULT_PROXY_ADDR",
        "BAO_HTTP_PROXY_FILE",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
    )
    for name in (*withheld, "KLEARSTACK_URL", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "x")
    with Hook(noting(log)) as hook:
        hook.call()
    ((_, environ),) = runs(log)
    assert {"KLEARSTACK_URL", "HTTPS_PROXY"} <= environ.keys()
    assert not {*withheld} & environ.keys()


class FakeRun:
    """In place of children.run: each run lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.going_on = threading.Semaphore(0)
        self.runs: list[tuple[list[str], float]] = []
        self.now = 0
        self.crowd = 0
        self.result: int | Exception = 0

    def __call__(self, command: list[str], environ: dict[str, str], timeout: float) -> int:
        self.now += 1
        self.crowd = max(self.crowd, self.now)
        self.runs.append((command, timeout))
        self.begun.release()
        assert self.going_on.acquire(timeout=PATIENCE)
        self.now -= 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRun]:
    fake = FakeRun()
    monkeypatch.setattr(children, "run", fake)
    yield fake
    fake.going_on.release(1000)


def test_one_run_is_for_all_that_changed_meanwhile_and_there_is_one_at_a_time(fake_run: FakeRun) -> None:
    with Hook("true") as hook:
        hook.call()
        assert fake_run.begun.acquire(timeout=PATIENCE)
        for _ in range(50):
            hook.call()
        fake_run.going_on.release()
        assert fake_run.begun.acquire(timeout=PATIENCE)
        assert len(fake_run.runs) == 2
        hook.call()
        fake_run.going_on.release(1000)
    assert not hook._worker.is_alive()
    assert (len(fake_run.runs), fake_run.crowd) == (3, 1)


def test_a_hook_has_a_minute(fake_run: FakeRun) -> None:
    fake_run.going_on.release(1000)
    with Hook("true 'y z'") as hook:
        hook.call()
    assert fake_run.runs == [(["true", "y z"], 60.0)]


def test_a_hook_that_hangs_does_not_keep_the_process(
    fake_run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_module, "GRACE", 0.01)
    with Hook("true") as hook:
        hook.call()
        assert fake_run.begun.acquire(timeout=PATIENCE)
    assert hook._worker.is_alive()
    fake_run.going_on.release(1000)
    hook._worker.join(PATIENCE)
    assert not hook._worker.is_alive()


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (3, "exited with code 3"),
        (-9, "exited with code -9"),
        (subprocess.TimeoutExpired("CANARY", 60), "did not finish (TimeoutExpired)"),
        (FileNotFoundError("CANARY"), "did not finish (FileNotFoundError)"),
    ],
)
def test_a_hook_that_fails_is_told_and_runs_again_after_the_next_change(
    fake_run: FakeRun, caplog: pytest.LogCaptureFixture, result: int | Exception, told: str
) -> None:
    fake_run.result = result
    fake_run.going_on.release(1000)
    with Hook("true") as hook:
        for _ in range(2):
            hook.call()
            assert fake_run.begun.acquire(timeout=PATIENCE)
    assert warnings(caplog) == [f"the --on-change command {told}"] * 2
    assert "CANARY" not in caplog.text


def test_a_hook_that_succeeds_is_not_told(fake_run: FakeRun, caplog: pytest.LogCaptureFixture) -> None:
    fake_run.going_on.release(1000)
    with Hook("true") as hook:
        hook.call()
    assert warnings(caplog) == []


@pytest.mark.parametrize("command", ["", " ", "'no end", 'x "y', "x \\"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="--on-change takes a command"):
        Hook(command)


@pytest.mark.parametrize("command", ["no-such-command x", "/no/such", "/etc", "/etc/passwd"])
def test_a_command_that_cannot_be_run_is_refused(command: str) -> None:
    with pytest.raises(
        UsageError, match=f"--on-change names {command.split(maxsplit=1)[0]}, which cannot be run"
    ):
        Hook(command)
