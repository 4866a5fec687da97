"""Child processes: those that this process starts, and orphans, which PID 1 of a container has to wait for.

No other module may wait for any child in general, since that would take the exit codes that others wait for.
"""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, ENOENT
from pathlib import Path
from stat import S_ISREG
from typing import Any

from vault_plugin.signals import deferred

# Held from before a child starts until its number is in _started. Reentrant: a signal handler that reaps may interrupt.
_starting = threading.RLock()
_started: set[int] = set()


def is_init() -> bool:
    """Whether this process adopts orphans: processes whose parent has ended."""
    return os.getpid() == 1


def program(name: str) -> str:
    """Return the path of an executable program, by the rules of execve(2). Raises OSError; its `strerror` names the cause."""
    path = name if "/" in name else shutil.which(name)
    if path is None:
        raise FileNotFoundError(ENOENT, "no folder in PATH contains it")
    if not S_ISREG(Path(path).stat().st_mode) or not os.access(path, os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))
    with suppress(PermissionError), Path(path).open("rb") as file:
        # A script's first line, as much of it as Linux reads.
        first = re.match(rb"#![ \t]*([^ \t\n]+)", file.read(256))
        if first and not Path(os.fsdecode(first[1])).exists():
            raise FileNotFoundError(ENOENT, "the interpreter that its first line names does not exist")
    return path


def run(command: Sequence[str], environ: Mapping[str, str], timeout: float) -> int:
    """Run a command with empty standard input, and return its exit code, or -n after signal n.

    Raises OSError if it cannot be run, subprocess.TimeoutExpired if it was killed after `timeout` seconds.
    """
    with _starting:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)  # noqa: S603  the user's command
        _started.add(process.pid)
    try:
        return process.wait(timeout)
    finally:
        process.kill()  # has no effect if it has ended
        process.wait()
        _started.discard(process.pid)
        reap()  # those that it hid, see below


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process, with Popen's options, that is killed and waited for after the block.

    What a signal handler raises during the start is raised when the process can be killed.
    """
    with ExitStack() as stack:
        with deferred():
            process = subprocess.Popen(command, **options)  # noqa: S603  the caller's command
            stack.callback(_end, process)
        yield process


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()  # has no effect if it has ended
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def reap(*others: int) -> None:
    """As PID 1, wait for orphans that have ended: neither started here nor in `others`. Otherwise do nothing.

    An ended child that was started here hides later ones, until its starter has waited for it.
    """
    if not is_init():
        return
    with _starting:
        while (ended := _ended_child()) is not None and ended not in {*_started, *others}:
            with suppress(ChildProcessError):  # A handler that interrupted this one has waited for it.
                os.waitpid(ended, 0)


def _ended_child() -> int | None:
    """Return an ended child without waiting for it, or None."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid
