"""A command that runs with a token in its environment, and without what we get tokens with."""

import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from errno import EAGAIN
from re import ASCII, fullmatch
from typing import NoReturn

from vault_plugin import children
from vault_plugin.app import connect
from vault_plugin.errors import KlearstackVaultError, OutputError, UsageError
from vault_plugin.output.formats import variables
from vault_plugin.output.token_files import TokenFiles
from vault_plugin.settings import Settings
from vault_plugin.settings.credentials import without_credentials
from vault_plugin.tokens.jwt import Kind

# Python ignores these, and what is ignored stays so in the command.
_DEFAULTED = (signal.SIGPIPE, signal.SIGXFSZ)
# TSTP is left alone: a terminal sends it to the command as well, and stops both.
_WATCHED = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD),
}

LOOK = 1.0  # seconds between two looks at the token's files


class NotRunError(KlearstackVaultError):
    """As in a shell. Not in errors.py's tree, all of whose codes are other than a shell's."""

    exit_code = 126
    code = "command_not_run"
    meaning = "`exec`: the command cannot be run"


class NotFoundError(NotRunError):
    exit_code = 127
    code = "command_not_found"
    meaning = "`exec`: the command does not exist"


def run(
    command: tuple[str, ...],
    settings: Settings,
    kinds: Collection[Kind],
    *,
    variable: str | None = None,
    as_file: bool = False,
    pristine: bool = False,
) -> NoReturn:
    """Become the command; with `as_file` become its parent (see `supervise`), which returns its exit code.

    The token goes into the environment's `variable`, or, `as_file`, into a private file that the variable names. The
    rest of the environment is ours but for our own credentials, or, with `pristine`, nothing.

    Raises NotFoundError, NotRunError, UsageError, OutputError, and what Broker.get raises; then nothing has run.
    """
    program = _found(command[0])
    if variable is not None and (len(kinds) > 1 or not fullmatch(r"[A-Za-z_]\w*", variable, ASCII)):
        raise UsageError("--env takes one name, of letters, digits and _, for one token.")
    if as_file:
        with TokenFiles({}):  # or no token need be requested
            pass
    with connect(settings) as broker:  # left before the command starts: a login of ours ends here
        told = variables(broker.get(settings.identity(), kinds))
    secrets = {name: told.pop(name) for name in list(told) if name.endswith("_TOKEN")}
    if not as_file:
        environ = ({} if pristine else without_credentials(os.environ)) | told
        _become(program, command, environ | {variable or name: text for name, text in secrets.items()})
    # Until the end: nothing may end us before the files are gone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    plan = {"program": program, "secrets": secrets, "told": told, "variable": variable, "pristine": pristine}
    _restart(plan | {"mask": sorted(map(int, before))}, command)


def supervise(descriptor: int, command: tuple[str, ...]) -> int:
    """The rest of `run` with `as_file`, in the same process started again, which has the plan from this descriptor.

    Returns the command's exit code (128 + n: signal n). Raises NotFoundError, NotRunError, OutputError, UsageError.
    """
    try:
        with os.fdopen(descriptor, "rb") as pipe:
            plan = json.loads(pipe.read())
        secrets, variable, mask = plan["secrets"], plan["variable"], plan["mask"]
        environ = ({} if plan["pristine"] else dict(os.environ)) | plan["told"]
    except (OSError, ValueError, LookupError, TypeError):  # from None: the cause may quote a token
        raise UsageError("Only `exec --as-file` starts this command.") from None
    with TokenFiles(secrets) as files:
        environ |= {variable or f"{name}_FILE": path for name, path in files.paths.items()}
        return _supervised(plan["program"], command, environ, mask, files.keep)


def _restart(plan: Mapping[str, object], command: tuple[str, ...]) -> NoReturn:
    """Start again to wait for the command.

    What we got the token with is then gone from our memory, and from what the kernel shows to other processes of the same
    user: the environment and the command line that a process was started with.
    """
    told = json.dumps(plan).encode()
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)  # since nobody reads yet; 64 KiB fit
        if os.write(writing, told) < len(told):
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        os.close(writing)
    except OSError as exc:
        raise OutputError(f"The token does not fit into a pipe ({exc.strerror}).") from None
    os.set_inheritable(reading, True)
    ourselves = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    arguments = [sys.executable, *ourselves, "supervise", str(reading), *command]
    try:
        os.execve(sys.executable, arguments, without_credentials(os.environ))  # noqa: S606  as below
    except OSError as exc:
        raise NotRunError(f"The command cannot be run ({exc.strerror}).") from None


def _found(name: str) -> str:
    try:
        return children.program(name)
    except OSError as exc:
        raise _not_run(exc) from None


def _become(program: str, command: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    for number in _DEFAULTED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, command, environ)  # noqa: S606  a shell is what nobody wants here
    except OSError as exc:
        raise _not_run(exc) from None


def _supervised(
    program: str,
    command: tuple[str, ...],
    environ: Mapping[str, str],
    mask: Collection[signal.Signals | int],
    keep_files: Callable[[], None],
) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or, where our caller ignores it, no end would be told
    try:
        child = os.posix_spawn(program, command, environ, setsigmask=mask, setsigdef=_DEFAULTED)
    except OSError as exc:
        raise _not_run(exc) from None
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        children.reap(child)
        sent = signal.sigtimedwait(_WATCHED, LOOK)
        if sent is None:
            keep_files()
            continue
        # A terminal sends the signals of its keys to the command, too (si_code > 0): twice is once too often. But of
        # its end it may tell us alone.
        if sent.si_code <= 0 or sent.si_signo == signal.SIGHUP:
            with suppress(PermissionError):  # the command is another user's now, as sudo is
                os.kill(child, sent.si_signo)
    code = os.waitstatus_to_exitcode(ended[1])
    return code if code >= 0 else 128 - code


def _not_run(exc: OSError) -> NotRunError:
    kind = NotFoundError if isinstance(exc, FileNotFoundError) else NotRunError
    return kind(f"The command cannot be run ({exc.strerror}).")
