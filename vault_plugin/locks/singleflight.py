"""One caller per key among all threads and processes of this user on this host; the others wait for the lock.

The lock is the kernel's (flock on a file that nobody deletes), so that it is released when its holder ends, also by
SIGKILL. 4096 files serve all keys: two identities that share one wait for each other, which has no other effect.
What one holder leaves in the file for the next ones is in handle.py.

On a network file system each of these calls may take any time, so that all of them go through timing/blocking.py.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vault_plugin.errors import BusyError, OutputError
from vault_plugin.locks.folder import LockFolder
from vault_plugin.locks.handle import LEAST, LockHandle, digest
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.wording import named

# No locks on this file system (NFS, some overlays), or no room for another lock file.
WITHOUT_LOCKS = {
    *(errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.ENOSPC, errno.EDQUOT),
}
_log = logging.getLogger(__name__)


class SingleFlight:
    """Locks in a folder that belongs to this user alone. Raises OutputError if there cannot be one.

    Where the file system has no locks, the handle's `unlocked` says so, and the caller is not alone.
    """

    def __init__(self, folder: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = LockFolder(folder)
        self._sleep = sleep

    @contextmanager
    def lock(self, key: str, deadline: Deadline) -> Iterator[LockHandle]:
        """Hold the lock of `key`. Raises BusyError if another holds it, or the folder does not respond, in time."""
        name = digest(key)
        backoff = full_jitter(0.01, 0.1)
        waited, began = False, time.monotonic()
        while (locked := self._locked_in_time(name[:3], deadline)) is None:
            if not waited:
                _log.info("waiting: another caller of this host holds the lock of this identity")
            waited = True
            pause = next(backoff)
            if pause >= deadline.left():
                raise BusyError(
                    "Another process held the lock of this identity until the deadline.",
                    hint=f"Try again, or allow more time with {named('deadline')}.",
                )
            self._sleep(pause)
        if waited:
            _log.info("waited %.2f s for the lock", time.monotonic() - began)
        if isinstance(locked, OutputError):
            handle = LockHandle(None, name, b"", unlocked=locked)
        else:
            handle = LockHandle(locked[0], name, locked[1], waited=waited)
        try:
            yield handle
        finally:
            handle.release()

    def _locked_in_time(self, name: str, deadline: Deadline) -> tuple[int, bytes] | OutputError | None:
        """The locked file's descriptor and content; None if another caller holds the lock; why there are no locks."""
        try:
            return blocking.call(
                f"lock folder {self._folder}",
                lambda: self._locked(name),
                max(LEAST, deadline.left()),
                discard=lambda locked: os.close(locked[0]) if isinstance(locked, tuple) else None,
            )
        except TimeoutError:
            raise BusyError(
                f"The lock folder {self._folder} did not respond in time.",
                hint=f"Check its file system, or name another folder with {named('lock_dir')}.",
            ) from None

    def _locked(self, name: str) -> tuple[int, bytes] | OutputError | None:
        try:
            descriptor = self._folder.open(name)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor, os.pread(descriptor, 2048, 0)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
        except OSError as exc:
            error = OutputError(
                f"No lock file can be created in {self._folder} ({exc.strerror}).",
                hint=f"Name another folder with {named('lock_dir')}.",
            )
            if exc.errno in WITHOUT_LOCKS:
                return error
            raise error from None
