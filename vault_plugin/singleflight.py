"""One caller per key among all threads and processes of this user on this host; the others wait for their turn.

The lock is the kernel's (flock on a file that nobody deletes), so that it ends with its holder, also by SIGKILL. The
file also carries a memo from one holder to the next: Vault's index of the newest write, which the next one's reads
must have seen. 4096 files serve all keys: two identities that share one wait for each other, and nothing else.
"""

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from vault_plugin.errors import BusyError, OutputError
from vault_plugin.retry import Deadline, full_jitter

_MEMO = re.compile(rb"([0-9a-f]{64}) ([!-~]{1,1024})")


class Turn:
    """What the holder of the lock may read and leave. `waited`: somebody else had it first."""

    def __init__(self, descriptor: int, key: str, *, waited: bool) -> None:
        self._descriptor = descriptor
        self._key = key
        self.waited = waited

    @property
    def memo(self) -> str | None:
        """What the last holder left for this key."""
        found = _MEMO.fullmatch(os.pread(self._descriptor, 2048, 0))
        return found[2].decode() if found and found[1].decode() == self._key else None

    def leave(self, memo: str) -> None:
        """Leave something (no secret) for the next holder."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{self._key} {memo}".encode(), 0)


class SingleFlight:
    """Locks in a folder that belongs to this user alone. Raises OutputError if there cannot be one."""

    def __init__(self, folder: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = Path(folder)
        self._sleep = sleep

    @contextmanager
    def turn(self, key: str, deadline: Deadline) -> Iterator[Turn]:
        """Hold the lock of `key`. Raises BusyError if another holds it until the deadline."""
        digest = sha256(key.encode(errors="surrogateescape")).hexdigest()
        descriptor = self._open(digest[:3])
        try:
            pauses = full_jitter(0.01, 0.1)
            waited = False
            while not _locked(descriptor):
                waited = True
                pause = next(pauses)
                if pause >= deadline.left():
                    raise BusyError(
                        "Another process has been fetching this token for too long.",
                        hint="Try again, or give more time with --deadline.",
                        retryable=True,
                    )
                self._sleep(pause)
            yield Turn(descriptor, digest, waited=waited)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self._folder.lstat()
            # In /tmp anybody might have put a folder or a link of that name before us.
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
                raise OutputError(
                    f"The lock folder {self._folder} is not this user's own.",
                    hint="Remove it, or name another with KLEARSTACK_LOCK_DIR.",
                )
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self._folder / name, flags, 0o600)
        except OSError as exc:
            raise OutputError(
                f"No lock file can be made in {self._folder} ({exc.strerror}).",
                hint="Name another folder with KLEARSTACK_LOCK_DIR.",
            ) from None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
