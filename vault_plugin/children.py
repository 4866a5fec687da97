"""Child processes: our own, and those whose parent has ended, which PID 1 of a container has to wait for.

Nobody else may wait for these in general, since one wait for all children takes the exit codes that others wait for.
"""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EACCES, ENOENT
from pathlib import Path
from stat import S_ISREG

# Held from before a child of ours starts until it is known; a signal handler that reaps may interrupt another one.
_starting = threading.RLock()
_ours: set[int] = set()


def is_init() -> bool:
    """Whether this process is the one to which the kernel gives processes whose parent has ended."""
    return os.getpid() == 1


def program(name: str) -> str:
    """The path of a program that can be run, as execve(2) sees it. Raises OSError, whose `strerror` says what is wrong."""
    path = name if "/" in name else shutil.which(name)
    if path is None:
        raise FileNotFoundError(ENOENT, "it is in no folder of PATH")
    if not S_ISREG(Path(path).stat().st_mode) or not os.access(path, os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))
    with suppress(PermissionError), Path(path).open("rb") as file:
        # A script's first line, as much of it as Linux looks at.
        first = re.match(rb"#![ \t]*([^ \t\n]+)", file.read(256))
        if first and not Path(os.fsdecode(first[1])).exists():
            raise FileNotFoundError(ENOENT, "the interpreter that its first line names does not exist")
    return path


def run(command: Sequence[str], environ: Mapping[str, str], timeout: float) -> int:
    """Run it without a standard input, and return its exit code, -n after signal n.

    Raises OSError if it cannot be run, subprocess.TimeoutExpired if it was killed after `timeout` seconds.
    """
    with _starting:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)  # noqa: S603  the user's own
        _ours.add(process.pid)
    try:
        return process.wait(timeout)
    finally:
        process.kill()  # nothing, if it has ended
        process.wait()
        _ours.discard(process.pid)
        reap()  # what ended behind it, see below


def reap(*ours: int) -> None:
    """As PID 1, wait for the ended children that are not ours (nor in `ours`); else do nothing.

    An ended child of ours hides those behind it, until whoever started it has waited for it.
    """
    if not is_init():
        return
    with _starting:
        while (ended := _ended_child()) is not None and ended not in {*_ours, *ours}:
            with suppress(ChildProcessError):  # the handler that interrupted us has waited for it
                os.waitpid(ended, 0)


def _ended_child() -> int | None:
    """An ended child, which stays as it is."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid
