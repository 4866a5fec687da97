"""`exec`: run a command with a token in its environment, and without the credentials that tokens are requested with."""

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

# Python ignores these, and an ignored signal stays ignored in the command.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ)
# Not TSTP: a terminal sends it to the command as well, and stops both.
_HANDLED = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD),
}
_ENDING = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
CHECK_FILES_EVERY = 1.0  # seconds


class NotRunError(KlearstackVaultError):
    """The command cannot be run. The exit codes of this class are a shell's, those in errors.py are not."""

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
    """Replace this process by the command; with `as_file` by its parent (see `supervise`), which returns its exit code.

    The token goes into the environment's `variable`, or, `as_file`, into a private file that the variable names. The
    command inherits the environment without the credentials of klearstack-vault, or, with `pristine`, nothing else.

    Raises NotFoundError, NotRunError, UsageError, OutputError, and what Broker.get raises; the command has not run then.
    """
    program = _found(command[0])
    if variable is not None and (len(kinds) > 1 or not fullmatch(r"[A-Za-z_]\w*", variable, ASCII)):
        raise UsageError("--env takes one name (letters, digits, _), for one token.")
    if as_file:
        with TokenFiles({}):  # Fails before a token is requested if no file can be created.
            pass
    with connect(settings) as broker:  # closed before the command starts, which revokes the login to Vault
        environment = variables(broker.get(settings.identity(), kinds))
    secrets = {name: environment.pop(name) for name in list(environment) if name.endswith("_TOKEN")}
    if not as_file:
        environ = ({} if pristine else without_credentials(os.environ)) | environment
        _become(program, command, environ | {variable or name: text for name, text in secrets.items()})
    # Until the end: no signal may end this process before the files are removed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    plan = {
        "program": program,
        "secrets": secrets,
        "environment": environment,
        "variable": variable,
        "pristine": pristine,
    }
    _restart(plan | {"mask": sorted(map(int, before))}, command)


def supervise(descriptor: int, command: tuple[str, ...]) -> int:
    """Do the rest of `run` with `as_file`: the same process, restarted, reads the plan from this descriptor.

    Returns the command's exit code (128 + n: signal n). Raises NotFoundError, NotRunError, OutputError, UsageError.
    """
    try:
        with os.fdopen(descriptor, "rb") as pipe:
            plan = json.loads(pipe.read())
        secrets, variable, mask = plan["secrets"], plan["variable"], plan["mask"]
        environ = ({} if plan["pristine"] else dict(os.environ)) | plan["environment"]
    except (OSError, ValueError, LookupError, TypeError):
        # From None, since the cause may quote a token.
        raise UsageError("Only `exec --as-file` can start this command.") from None
    with TokenFiles(secrets) as files:
        environ |= {variable or f"{name}_FILE": path for name, path in files.paths.items()}
        return _supervised(plan["program"], command, environ, mask, files.keep)


def _restart(plan: Mapping[str, object], command: tuple[str, ...]) -> NoReturn:
    """Restart this process, which then waits for the command.

    That removes the credentials from its memory, and from what the kernel shows to other processes of the same user: the
    environment and the command line with which a process was started.
    """
    content = json.dumps(plan).encode()
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)  # Nothing reads yet; 64 KiB fit.
        if os.write(writing, content) < len(content):
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        os.close(writing)
    except OSError as exc:
        raise OutputError(f"The token does not fit into a pipe ({exc.strerror}).") from None
    os.set_inheritable(reading, True)
    start = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    arguments = [sys.executable, *start, "supervise", str(reading), *command]
    try:
        os.execve(sys.executable, arguments, without_credentials(os.environ))  # noqa: S606  as below
    except OSError as exc:
        raise NotRunError(f"The command cannot be run ({exc.strerror}).") from None


def _found(name: str) -> str:
    try:
        return children.program(name)
    except OSError as exc:
        raise _not_run_error(exc) from None


def _become(program: str, command: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, command, environ)  # noqa: S606  no shell is wanted
    except OSError as exc:
        raise _not_run_error(exc) from None


def _supervised(
    program: str,
    command: tuple[str, ...],
    environ: Mapping[str, str],
    mask: Collection[signal.Signals | int],
    keep_files: Callable[[], None],
) -> int:
    # Not inherited as ignored from the caller: the exit code would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A terminal sends the signal of a key once, and the command, which it is meant to end, does not exist yet.
    if ending := _pending(mask):
        return 128 + min(ending)
    try:
        child = os.posix_spawn(program, command, environ, setsigmask=mask, setsigdef=_RESET)
    except OSError as exc:
        raise _not_run_error(exc) from None
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        children.reap(child)
        received = signal.sigtimedwait(_HANDLED, CHECK_FILES_EVERY)
        if received is None:
            keep_files()
            continue
        # A terminal sends the signals of its keys to the command itself (si_code > 0). Its SIGHUP at the end may come to
        # this process alone.
        if received.si_code <= 0 or received.si_signo == signal.SIGHUP:
            with suppress(PermissionError):  # The command may run as another user, as sudo does.
                os.kill(child, received.si_signo)
    code = os.waitstatus_to_exitcode(status[1])
    return code if code >= 0 else 128 - code


def _pending(mask: Collection[signal.Signals | int]) -> set[signal.Signals]:
    """The signals that have arrived and would end a command with this mask, which neither blocks nor ignores them."""
    arrived = (signal.sigpending() & _ENDING).difference(mask)
    return {one for one in arrived if signal.getsignal(one) is not signal.SIG_IGN}


def _not_run_error(exc: OSError) -> NotRunError:
    kind = NotFoundError if isinstance(exc, FileNotFoundError) else NotRunError
    return kind(f"The command cannot be run ({exc.strerror}).")
