"""Temporary files that are removed after use, also after a signal.

Each is locked (flock) by its writer. The file of a killed process is not locked; the next writer for the same path removes
it.
"""

import atexit
import errno
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from vault_plugin.errors import OutputError
from vault_plugin.signals import STOP, handled

SUFFIX = ".klearstack-vault"
SLOTS = 8  # names for one path, which are searched for leftovers
NO_WAIT = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # does not block on a FIFO
_in_use: dict[str, int] = {}  # names and descriptors
_guard = threading.RLock()  # protects _in_use; reentrant for the signal handler


@contextmanager
def temporary_folder(prefix: str, folder: str | None = None) -> Iterator[str]:
    """Create a folder of mode 0700 that is removed after the block. Raises OutputError."""
    import tempfile  # noqa: PLC0415  with three compression libraries; a stored token is printed without a folder

    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=folder)
    except OSError as exc:
        raise OutputError(
            f"No temporary folder can be created ({exc.strerror}).",
            hint="Name a writable folder with TMPDIR.",
        ) from None
    with made as name:
        yield name


@contextmanager
def removed_on_signals() -> Iterator[None]:
    """Remove temporary files when a signal ends the process. Does nothing outside of the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    with handled([one for one in STOP if is_main and signal.getsignal(one) is signal.SIG_DFL], _end):
        yield


def _end(number: int, _: object) -> None:
    _remove_temporary_files()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _remove_temporary_files() -> None:
    if _guard.acquire(timeout=0.5):  # another thread may hold it on a hanging file system
        try:
            while _in_use:
                _unlink(*_in_use.popitem())
        finally:
            _guard.release()


atexit.register(_remove_temporary_files)  # for threads that are still running at exit


def temporary_file(path: Path, owner: int = -1) -> tuple[int, str]:
    """Create a locked temporary file for that path; returns descriptor and name. Removes leftovers first.

    `owner` is the id of the user that the file is given to later. Raises OSError.
    """
    # A digest, since the name itself may be as long as the file system allows.
    digest = sha256(os.fsencode(path.name)).hexdigest()[:16]
    stem = f"{path.parent}/.{digest}"
    names = [f"{stem}.{slot}{SUFFIX}" for slot in range(SLOTS)]
    owners = {os.geteuid(), owner}
    for name in names:
        _remove_leftover(name, owners)
    for name in names:
        if (descriptor := _created(name)) is not None:
            return descriptor, name
    # There are many writers, or another user has taken the names.
    name = f"{stem}.{os.urandom(8).hex()}{SUFFIX}"
    if (descriptor := _created(name)) is None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    return descriptor, name


def _created(name: str) -> int | None:
    """Create and lock the file; None if the name is taken, or another writer is removing it as a leftover."""
    try:
        with _guard:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _in_use[name] = descriptor
    except FileExistsError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = not os.fstat(descriptor).st_nlink
    except BlockingIOError:
        # Another writer removes it. Were it removed here as well, that one could remove the next file of this name.
        with _guard:
            _in_use.pop(name, None)
        taken = True
    except OSError:  # without locks, no writer removes it as a leftover
        taken = False
    if not taken:
        return descriptor
    discard(descriptor, name)
    return None


def _remove_leftover(name: str, owners: set[int]) -> None:
    """Remove the file if one of the owners has it and no running process has locked it."""
    try:
        descriptor = os.open(name, os.O_RDONLY | NO_WAIT)
    except OSError:
        return
    with suppress(OSError):  # it is locked, or the file system has no locks
        about = os.fstat(descriptor)
        if S_ISREG(about.st_mode) and about.st_uid in owners:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unlink(name, descriptor)
    os.close(descriptor)


def discard(descriptor: int, name: str) -> None:
    """Close the file, and remove it unless it was renamed."""
    with _guard:
        if _in_use.pop(name, None) is not None:
            _unlink(name, descriptor)
    os.close(descriptor)


def _unlink(name: str, descriptor: int) -> None:
    """Remove the file, unless the name now belongs to another file."""
    with suppress(OSError):  # it was renamed
        if os.path.samestat(os.lstat(name), os.fstat(descriptor)):
            os.unlink(name)  # noqa: PTH108
