"""Many command lines, each with the standard streams that a shell has redirected, in one process that forks for each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Python has started with these streams, and no descriptor stays open that was not open then: so each child begins as a
# process of its own does, and ends as one, but need not start Python and load all modules again.
_PROGRAM = """
import importlib, json, os, sys
from vault_plugin import cli
for target in cli.COMMANDS.values():
    importlib.import_module("vault_plugin.commands." + target.split(":")[0])
results, out, err, commands = sys.argv[1:]
for arguments in json.loads(commands):
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError:
        pass
    if not (child := os.fork()):
        sys.argv[1:] = arguments
        cli.main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(results, "a") as file:
        print(code, os.stat(out).st_size, os.stat(err).st_size, file=file)
"""


class Ended(NamedTuple):
    """How a command line ended, and what it printed."""

    code: int
    out: bytes
    err: bytes


def series(
    folder: Path,
    commands: Sequence[Sequence[str]],
    redirection: str = "",
    *,
    stderr: int | None = None,
    **environ: str,
) -> list[Ended]:
    """How `klearstack-vault` ends with each of these arguments. Its standard input is `{}` each time.

    `stderr` is a descriptor that takes what would else be in `err`.
    """
    results, stdin, out, err = (folder / name for name in ("results", "stdin", "out", "err"))
    stdin.write_bytes(b"{}")
    results.unlink(missing_ok=True)
    # -X utf8: in another locale the command starts Python again, with the program above.
    program = [
        sys.executable,
        "-X",
        "utf8",
        "-c",
        _PROGRAM,
        *map(str, (results, out, err)),
        json.dumps(commands),
    ]
    with stdin.open("rb") as query, out.open("wb") as printed, err.open("wb") as said:
        driver = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *program],
            env=os.environ | environ,
            stdin=query,
            stdout=printed,
            stderr=said if stderr is None else stderr,
            start_new_session=True,
        )
        try:
            assert driver.wait(120) == 0
        finally:  # also what it has started, if a command does not end
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
    ended, out_from, err_from = [], 0, 0
    for line in results.read_text().splitlines():
        code, out_to, err_to = map(int, line.split())
        parts = out.read_bytes()[out_from:out_to], err.read_bytes()[err_from:err_to]
        ended.append(Ended(code, *parts))
        out_from, err_from = out_to, err_to
    assert len(ended) == len(commands)
    return ended
