"""One caller per key among all threads and processes of this user on this host; the others wait for their turn.

The lock is the kernel's (flock on a file that nobody deletes), so that it ends with its holder, also by SIGKILL. The
file also carries a memo from one holder to the next: Vault's index of the newest write, which the next one's reads
must have seen. And it carries the last failure of the endpoint, so that whoever was waiting meanwhile does not ask for it
to fail again. 4096 files serve all keys: two identities that share one wait for each other, and nothing else.

On a network file system each of these calls may take as long as it likes, so that all of them go through blocking.py.
"""

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

from vault_plugin.errors import BusyError, Failure, OutputError
from vault_plugin.failures import code_of
from vault_plugin.lock_folder import LockFolder
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline
from vault_plugin.wording import named

LEAST = 0.5  # seconds that the folder gets in any case; a local one takes microseconds
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # monotonic time is one host's, from one boot to the next
# No locks on this file system (NFS, some overlays), or no room for another lock file.
WITHOUT_LOCKS = {
    *(errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.ENOSPC, errno.EDQUOT),
}
_log = logging.getLogger(__name__)
_MEMO = re.compile(rb"([0-9a-f]{64}) ([!-~]{1,1024})")
_FAILURE = re.compile(
    rb"(?P<key>[0-9a-f]{64}) (?P<terms>[0-9a-f]{64}) (?P<code>\w{1,40}) (?P<cause>\w{1,60}) (?P<number>[0-9]{1,9})"
    rb" (?P<retry_after>[0-9]{1,12}\.[0-9]{3}) (?P<boot>[0-9a-f-]{36}) (?P<at>[0-9]{1,12}\.[0-9]{6})"
)


class Turn:
    """What the holder of the lock may read and leave. `waited`: somebody else had it first.

    `unlocked`: there is no lock, since the file system has none; the error to raise if that will not do.
    """

    def __init__(
        self,
        descriptor: int | None,
        key: str,
        content: bytes,
        *,
        waited: bool = False,
        unlocked: OutputError | None = None,
    ) -> None:
        self.unlocked = unlocked
        self._descriptor = descriptor
        self._key = key
        self._lines = [line for line in content.split(b"\n") if line.startswith(key.encode())]
        self.waited = waited

    @property
    def memo(self) -> str | None:
        """What the last holder left for this key."""
        found = self._found(_MEMO)
        return found[2].decode() if found else None

    def leave(self, memo: str) -> None:
        """Leave something (no secret) for the next holder. Without it, that one may read an older state once."""
        self._replace(_MEMO, f"{self._key} {memo}".encode())

    def failure(self, terms: str, since: float) -> tuple[Failure, float] | None:
        """How the endpoint failed for a holder on equal terms, after `since` (monotonic seconds), and how long ago."""
        found = self._found(_FAILURE)
        if found is None or found["terms"].decode() != _digest(terms) or found["boot"].decode() != _boot_id():
            return None
        failure = Failure(found["cause"].decode(), int(found["number"]), float(found["retry_after"]))
        at, now = float(found["at"]), time.monotonic()
        return (
            (failure, now - at) if since < at <= now and code_of(failure) == found["code"].decode() else None
        )

    def leave_failure(self, failure: Failure, terms: str) -> None:
        """Tell the next holders that the endpoint has failed; `terms` are the settings on which that depends."""
        facts = f"{code_of(failure)} {failure.cause} {failure.number} {min(failure.retry_after, 1e9):.3f}"
        when = f"{_boot_id()} {time.monotonic():.6f}"
        self._replace(_FAILURE, f"{self._key} {_digest(terms)} {facts} {when}".encode())

    def forget_failure(self) -> None:
        """Have no later holder hear of it: the endpoint has responded since."""
        if self._found(_FAILURE):
            self._replace(_FAILURE, b"")

    def _found(self, form: re.Pattern[bytes]) -> re.Match[bytes] | None:
        return next(filter(None, map(form.fullmatch, self._lines)), None)

    def _replace(self, form: re.Pattern[bytes], line: bytes) -> None:
        """Put this line in place of those of that form. One that is none of either form is dropped."""
        kept = [one for one in self._lines if not form.fullmatch(one)]
        self._lines = [one for one in [*kept, line] if _MEMO.fullmatch(one) or _FAILURE.fullmatch(one)]
        self._do(partial(_write, b"\n".join(self._lines)), too_late=os.close)

    def end(self) -> None:
        """Give the lock back."""
        self._do(_close, too_late=lambda _: None)
        self._descriptor = None

    def _do(self, task: Callable[[int], None], too_late: Callable[[int], None]) -> None:
        """Do something with the file. If that takes too long, `too_late` follows in its thread, and nothing else here."""
        descriptor = self._descriptor
        if descriptor is None:
            return
        try:
            blocking.call(
                f"lock {descriptor}",
                lambda: task(descriptor),
                LEAST,
                discard=lambda _: too_late(descriptor),
            )
        except TimeoutError:
            self._descriptor = None


class SingleFlight:
    """Locks in a folder that belongs to this user alone. Raises OutputError if there cannot be one.

    Where the file system has no locks, a turn is not alone, and says so.
    """

    def __init__(self, folder: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = LockFolder(folder)
        self._sleep = sleep

    @contextmanager
    def turn(self, key: str, deadline: Deadline) -> Iterator[Turn]:
        """Hold the lock of `key`. Raises BusyError if another holds it, or the folder does not respond, in time."""
        digest = _digest(key)
        pauses = full_jitter(0.01, 0.1)
        waited, began = False, time.monotonic()
        while (locked := self._locked_in_time(digest[:3], deadline)) is None:
            if not waited:
                _log.info("another caller of this host has the lock of this identity: waiting")
            waited = True
            pause = next(pauses)
            if pause >= deadline.left():
                raise BusyError(
                    "Another process has been fetching this token for too long.",
                    hint=f"Try again, or give more time with {named('deadline')}.",
                )
            self._sleep(pause)
        if waited:
            _log.info("waited %.2f s for the lock", time.monotonic() - began)
        if isinstance(locked, OutputError):
            turn = Turn(None, digest, b"", unlocked=locked)
        else:
            turn = Turn(locked[0], digest, locked[1], waited=waited)
        try:
            yield turn
        finally:
            turn.end()

    def _locked_in_time(self, name: str, deadline: Deadline) -> tuple[int, bytes] | OutputError | None:
        """The locked file's descriptor and content; None if somebody else holds the lock; why there are no locks."""
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
                f"No lock file can be made in {self._folder} ({exc.strerror}).",
                hint=f"Name another folder with {named('lock_dir')}.",
            )
            if exc.errno in WITHOUT_LOCKS:
                return error
            raise error from None


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def _boot_id() -> str:
    """Empty where the kernel tells none: what is left then fits nobody."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _write(content: bytes, descriptor: int) -> None:
    with suppress(OSError):  # such as a full disk, for which no token shall be lost
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _close(descriptor: int) -> None:
    with suppress(OSError):  # a network file system may tell here that it is full
        os.close(descriptor)
