"""What the holder of a lock leaves in its file for the next holders: a memo, and the endpoint's last failure.

The memo is Vault's index of the newest write, which the next holder's reads must have seen. The failure keeps those who
were waiting meanwhile from sending the same request, only for it to fail again. The file holds one line of each per key,
and no secret.
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

from vault_plugin.errors import Failure, OutputError
from vault_plugin.failures import code_of
from vault_plugin.timing import blocking
from vault_plugin.timing.backoff import MAX_RETRY_AFTER

LEAST = 0.5  # seconds that the folder has in any case; a local one takes microseconds
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # monotonic time is one host's, from one boot to the next
_MEMO = rb"([0-9a-f]{64}) ([!-~]{1,1024})"
_FAILURE = (
    rb"(?P<key>[0-9a-f]{64}) (?P<terms>[0-9a-f]{64}) (?P<code>\w{1,40}) (?P<cause>\w{1,60}) (?P<number>[0-9]{1,9})"
    rb" (?P<retry_after>[0-9]{1,12}\.[0-9]{3}) (?P<boot>[0-9a-f-]{36}) (?P<at>[0-9]{1,12}\.[0-9]{6})"
)


class LockHandle:
    """A lock while it is held. `waited`: another caller held it before.

    `unlocked`: there is no lock, since the file system has none; the error to raise if a lock is required.
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
        """The memo of the previous holder of this key."""
        found = self._found(_MEMO)
        return found[2].decode() if found else None

    def write_memo(self, memo: str) -> None:
        """Leave a memo (no secret) for the next holder. Where that fails, the next one may read an older state once."""
        self._replace(_MEMO, f"{self._key} {memo}".encode())

    def failure(self, terms: str, since: float) -> tuple[Failure, float] | None:
        """The failure that a holder with equal terms left after `since` (monotonic seconds), and its age in seconds."""
        found = self._found(_FAILURE)
        if found is None or found["terms"].decode() != digest(terms) or found["boot"].decode() != _boot_id():
            return None
        # Another version of this program may have written a longer one.
        pause = min(float(found["retry_after"]), MAX_RETRY_AFTER)
        failure = Failure(found["cause"].decode(), int(found["number"]), pause)
        at, now = float(found["at"]), time.monotonic()
        return (
            (failure, now - at) if since < at <= now and code_of(failure) == found["code"].decode() else None
        )

    def write_failure(self, failure: Failure, terms: str) -> None:
        """Leave the endpoint's failure for the next holders; `terms` are the settings on which it depends."""
        facts = f"{code_of(failure)} {failure.cause} {failure.number} {failure.retry_after:.3f}"
        when = f"{_boot_id()} {time.monotonic():.6f}"
        self._replace(_FAILURE, f"{self._key} {digest(terms)} {facts} {when}".encode())

    def clear_failure(self) -> None:
        """Remove the failure, since the endpoint has responded."""
        if self._found(_FAILURE):
            self._replace(_FAILURE, b"")

    def release(self) -> None:
        """Release the lock."""
        self._do(_close, too_late=lambda _: None)
        self._descriptor = None

    def _found(self, form: bytes) -> re.Match[bytes] | None:
        return next(filter(None, (re.fullmatch(form, line) for line in self._lines)), None)

    def _replace(self, form: bytes, line: bytes) -> None:
        """Write this line in place of those of that form. A line of neither form is dropped."""
        kept = [one for one in self._lines if not re.fullmatch(form, one)]
        self._lines = [
            one for one in [*kept, line] if re.fullmatch(_MEMO, one) or re.fullmatch(_FAILURE, one)
        ]
        self._do(partial(_write, b"\n".join(self._lines)), too_late=os.close)

    def _do(self, task: Callable[[int], None], too_late: Callable[[int], None]) -> None:
        """Apply the task to the file. If it takes too long, its thread calls `too_late` after it, and the file is given up."""
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


def digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def _boot_id() -> str:
    """Empty where the kernel has none: no failure is shared then."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _write(content: bytes, descriptor: int) -> None:
    with suppress(OSError):  # A full disk, for example, must not cost the token.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _close(descriptor: int) -> None:
    with suppress(OSError):  # A network file system may report here that it is full.
        os.close(descriptor)
