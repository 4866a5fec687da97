"""PID 1 waits for orphans, and every exit code reaches the code that started the child."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault_plugin import children

ENVIRON = dict(os.environ)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's other children are none that these tests may wait for: only those of a process group of its own."""
    monkeypatch.setattr(os, "waitid", lambda _kind, _id, how: WAITID(os.P_PGID, GROUP[0], how))
    with subprocess.Popen(["sleep", "60"], process_group=0) as leader:
        GROUP[:] = [leader.pid]
        yield
        leader.kill()


GROUP: list[int] = []
WAITID = os.waitid


def started(*command: str) -> int:
    """An orphan that has ended, as PID 1 adopts them."""
    file = [(os.POSIX_SPAWN_CLOSE, 0)]
    child = os.posix_spawnp(command[0], command, ENVIRON, setpgroup=GROUP[0], file_actions=file)
    WAITID(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return child


def is_there(child: int) -> bool:
    return Path(f"/proc/{child}").exists()


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "is_init", lambda: True)


@pytest.mark.usefixtures("init")
def test_pid_1_waits_for_all_that_have_ended() -> None:
    ended = [started("true"), started("false")]
    children.reap()
    assert [Path(f"/proc/{child}/stat").read_text() for child in ended if is_there(child)] == []


def test_only_pid_1_waits_for_children_that_it_did_not_start() -> None:
    child = started("true")
    children.reap()
    assert os.waitpid(child, 0) == (child, 0)


@pytest.mark.usefixtures("init")
def test_an_own_child_keeps_its_exit_code() -> None:
    child = started("sh", "-c", "exit 7")
    children.reap(child)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.usefixtures("init")
def test_no_exit_code_is_lost_while_others_are_waited_for() -> None:
    over = threading.Event()

    def reap() -> None:
        while not over.is_set():
            children.reap()

    reaper = threading.Thread(target=reap)
    reaper.start()
    try:
        script = f"import os; os.setpgid(0, {GROUP[0]}); os._exit(7)"
        codes = {children.run([sys.executable, "-Sc", script], ENVIRON, 60) for _ in range(20)}
    finally:
        over.set()
        reaper.join()
    assert codes == {7}


@pytest.mark.usefixtures("init")
def test_what_an_interrupting_handler_has_waited_for_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    child = started("true")
    ended = iter([child, child, None])
    monkeypatch.setattr(children, "_ended_child", lambda: next(ended))
    children.reap()
    assert not is_there(child)


@pytest.mark.usefixtures("init")
def test_without_any_child_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def waitid(*_: object) -> None:
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", waitid)
    children.reap()


def test_a_command_that_takes_too_long_is_killed_and_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        children.run(["sleep", "60"], ENVIRON, 0.05)
    assert time.monotonic() - begun < 30
    assert children.run(["sh", "-c", f"kill -{signal.SIGTERM} $$"], ENVIRON, 60) == -signal.SIGTERM


def test_a_command_has_no_standard_input() -> None:
    assert children.run(["sh", "-c", 'test -z "$(cat)" && exit 3'], ENVIRON, 60) == 3


@pytest.mark.parametrize(
    ("first_line", "runs"),
    [
        (b"#!/bin/sh\n", True),
        (b"#! \t/bin/sh -e\n", True),
        (b"#!/bin/sh", True),
        (b"#!/no/such/sh\n", False),
        (b"#! /no/such/sh -e\n", False),
        (b"#!/bin/sh\r\n", False),  # written on Windows
        (b"\x7fELF", True),  # what is in it is not looked at
        (b"", True),
    ],
)
def test_a_script_without_its_interpreter_cannot_be_run(
    first_line: bytes, runs: bool, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_bytes(first_line)
    script.chmod(0o755)
    if runs:
        assert children.program(str(script)) == str(script)
    else:
        with pytest.raises(FileNotFoundError, match="interpreter that its first line names"):
            children.program(str(script))


def test_a_program_may_be_unreadable_but_no_folder_or_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError

    os.mkfifo(tmp_path / "pipe", 0o755)
    for name in (tmp_path, tmp_path / "pipe", "/etc/passwd"):
        with pytest.raises(PermissionError):
            children.program(str(name))
    monkeypatch.setattr(Path, "open", denied)
    assert children.program("/bin/sh") == "/bin/sh"
    with pytest.raises(FileNotFoundError, match="no folder in PATH contains it"):
        children.program("no-such-command")
