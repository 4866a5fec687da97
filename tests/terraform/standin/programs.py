"""Run programs as Go's os/exec does: no shell, no terminal, killed on the spot when Terraform is interrupted."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from signal import strsignal

_starting = threading.Lock()
_stopped = threading.Event()
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Ended:
    """What a program left."""

    status: int  # -1 if a signal ended it
    state: str  # the same in Go's words
    stdout: str
    stderr: str


def run(path: str, arguments: list[str], stdin: str | None, folder: str | None) -> Ended:
    """Run it to its end. Raises OSError if it cannot be started."""
    with _starting:
        if _stopped.is_set():
            raise InterruptedError("context canceled")
        process = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder or None,
        )
        _running.add(process)
    out, err = process.communicate(None if stdin is None else stdin.encode())
    _running.discard(process)
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    # The real providers write the same into Terraform's log, at TRACE.
    entry = {"@level": "trace", "program": [path, *arguments], "output": stdout, "stderr": stderr}
    sys.stderr.write(json.dumps({"@message": "Executed external program"} | entry) + "\n")
    sys.stderr.flush()
    code = process.returncode
    state = f"signal: {strsignal(-code)}".lower() if code < 0 else f"exit status {code}"
    return Ended(max(code, -1), state, stdout, stderr)


def stop() -> None:
    """Kill those that run, and start no more."""
    _stopped.set()
    with _starting:
        for process in list(_running):
            process.kill()
