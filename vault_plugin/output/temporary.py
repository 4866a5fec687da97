"""Temporary files that do not outlive their use.

Each is locked (flock) by its writer. What a killed process left behind is not locked: the next writer for the same path
removes it.
"""

import atexit
import errno
import fcntl
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from vault_plugin.errors import OutputError

SUFFIX = ".klearstack-vault"
SLOTS = 8  # names for one path, among which leftovers are looked for
NO_WAIT = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # a FIFO would make us wait
_in_use: dict[str, int] = {}  # names and descriptors
_guard = threading.RLock()  # of _in_use; a signal handler may take it once more


@contextmanager
def temporary_folder(prefix: str, folder: str | None = None) -> Iterator[str]:
    """A folder of mode 0700 until the block ends, by default among the temporary files. Raises OutputError."""
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=folder)
    except OSError as exc:
        raise OutputError(
            f"No temporary folder can be made ({exc.strerror}).", hint="Name a writable folder with TMPDIR."
        ) from None
    with made as name:
        yield name


@contextmanager
def removed_on_signals() -> Iterator[None]:
    """Have a signal that ends the process remove temporary files first. For the main thread; nothing in others."""
    ours: list[int] = []
    if threading.current_thread() is threading.main_thread():
        ending = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        ours = [number for number in ending if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: object) -> None:
    _remove_temporary_files()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _remove_temporary_files() -> None:
    if _guard.acquire(timeout=0.5):  # a file system may hang
        try:
            while _in_use:
                _unlink(*_in_use.popitem())
        finally:
            _guard.release()


atexit.register(_remove_temporary_files)  # of threads that are left behind


def temporary_file(path: Path, owner: int = -1) -> tuple[int, str]:
    """A new temporary file for that path, locked, and its name; leftovers are removed.

    `owner` is the number of a user whom it may be given later. Raises OSError.
    """
    digest = sha256(os.fsencode(path.name)).hexdigest()[
        :16
    ]  # a name may be as long as the file system allows
    stem = f"{path.parent}/.{digest}"
    names = [f"{stem}.{slot}{SUFFIX}" for slot in range(SLOTS)]
    owners = {os.geteuid(), owner}
    for name in names:
        _remove_leftover(name, owners)
    for name in names:
        if (descriptor := _created(name)) is not None:
            return descriptor, name
    # Many writers at once, or another user who took the names.
    name = f"{stem}.{os.urandom(8).hex()}{SUFFIX}"
    if (descriptor := _created(name)) is None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    return descriptor, name


def _created(name: str) -> int | None:
    """Its descriptor; None if the name is taken, or another writer has just taken it for a leftover."""
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
        taken = True
    except OSError:  # no locks here: then nobody takes it for a leftover, either
        taken = False
    if not taken:
        return descriptor
    discard(descriptor, name)
    return None


def _remove_leftover(name: str, owners: set[int]) -> None:
    """Remove it if it is ours, and nobody's who still runs."""
    try:
        descriptor = os.open(name, os.O_RDONLY | NO_WAIT)
    except OSError:
        return
    with suppress(OSError):  # locked, or no locks here
        about = os.fstat(descriptor)
        if S_ISREG(about.st_mode) and about.st_uid in owners:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unlink(name, descriptor)
    os.close(descriptor)


def discard(descriptor: int, name: str) -> None:
    """Close it, and remove it unless it was renamed."""
    with _guard:
        if _in_use.pop(name, None) is not None:
            _unlink(name, descriptor)
    os.close(descriptor)


def _unlink(name: str, descriptor: int) -> None:
    """Remove the file unless the name is another one's by now."""
    with suppress(OSError):  # it was renamed
        if os.path.samestat(os.lstat(name), os.fstat(descriptor)):
            os.unlink(name)  # noqa: PTH108
