"""The token helper of Vault's own command: a program that `~/.bao` or `~/.vault` names, and that prints a Vault token.

It is how a token that `vault login` obtained, by any of its methods, is stored elsewhere than in `~/.vault-token`.
"""

import os
import re
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, cast

from vault_plugin.settings.environment import text_of_file
from vault_plugin.settings.values import credential
from vault_plugin.signals import deferred
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret

CONFIGS = (".bao", ".vault")  # in the home folder; the former is read by `bao`, the latter by `vault`
MAX_OUTPUT = 64 * 1024  # bytes
LONGEST_WAIT = 60.0  # seconds; poll takes no more than 24 days
# Comments, and texts in quotes, of HCL.
_COMMENTS = r'(?s)("(?:[^"\\\n]|\\.)*")|#[^\n]*|//[^\n]*|/\*.*?\*/'
_HELPER = r'(?:^|[{,\s])"?token_helper"?\s*[=:]\s*"((?:[^"\\\n]|\\.)*)"'
# Prints the exit status after the output: PID 1 of a container waits for all its children, and could take it away.
_SCRIPT = '"$0" get; printf "\\n%d" $?'


def token_helper(config: str | None, environ: Mapping[str, str], deadline: Deadline) -> str | None:
    """The path of the token helper; None if none is configured. Raises ValueError if the configuration is wrong."""
    home = Path(environ.get("HOME", "/nonexistent"))
    configs = [Path(config)] if config else map(home.joinpath, CONFIGS)
    # Path.exists raises PermissionError below a home folder that only another user may enter.
    found = next((path for path in configs if os.path.exists(path)), None)  # noqa: PTH110
    if found is None:
        return None
    complaint = f" is missing, and {found}, which may name a token helper, cannot be read"
    text = re.sub(_COMMENTS, lambda match: match[1] or " ", text_of_file(found, complaint, deadline))
    helpers = re.findall(_HELPER, text)
    if not helpers and text.strip().strip("{}").strip():
        raise ValueError(f' is missing, and {found} is not a configuration such as `token_helper = "/path"`')
    return str(Path(re.sub(r"\\(.)", r"\1", helpers[-1])).absolute()) if helpers and helpers[-1] else None


def token_of(helper: str, environ: Mapping[str, str], deadline: Deadline) -> Secret | None:
    """The token that the helper prints when it is called with `get`; None if it prints none.

    Raises ValueError, without what it printed, if it fails or prints something else.
    """
    about = f" is missing, and the token helper {helper}"
    if not os.access(helper, os.X_OK) or Path(helper).is_dir():
        raise ValueError(f"{about} is not an executable file")
    output = _output(helper, environ, deadline)
    if output is None:
        raise ValueError(f"{about} did not finish before the deadline")
    text, _, status = output.rpartition(b"\n")
    if status != b"0" and re.fullmatch(rb"\d{1,3}", status):
        raise ValueError(f"{about} failed (exit status {status.decode()}): call it with `get` to see why")
    try:
        return credential(text.decode() if status == b"0" else "\0")
    except ValueError:  # also UnicodeDecodeError
        raise ValueError(f"{about} printed something other than a token") from None


def _output(helper: str, environ: Mapping[str, str], deadline: Deadline) -> bytes | None:
    """What it prints, at most MAX_OUTPUT, and its exit status in the last line; None if it does not finish in time."""
    import select  # noqa: PLC0415  only a token helper needs these
    import subprocess  # noqa: PLC0415

    output = b""
    # Also after KeyboardInterrupt it is killed: a terminal's SIGINT does not reach another session.
    with ExitStack() as stack, ExitStack() as unfinished:
        with deferred():
            process = subprocess.Popen(  # noqa: S603  the user's own program
                ["/bin/sh", "-c", _SCRIPT, helper],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # It may quote the token.
                bufsize=0,
                start_new_session=True,
            )
            stack.enter_context(process)
            unfinished.callback(_kill, process)
        pipe = cast(IO[bytes], process.stdout)
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while len(output) < MAX_OUTPUT and (left := deadline.left()):
            if not ready.poll(1000 * min(left, LONGEST_WAIT)):
                continue
            if not (part := pipe.read(4096)):
                unfinished.pop_all()
                return output
            output += part
    return output if deadline.left() else None


def _kill(process: Any) -> None:
    """End the session that this process of subprocess leads."""
    with suppress(ProcessLookupError):  # It has ended, and one that it started holds the pipe.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
