"""Token files for a command: in memory if there is such a file system, and removed when the process ends.

The folder is locked (flock) while its process runs; the next process removes the folder of a killed one.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from vault_plugin.errors import KlearstackVaultError, OutputError
from vault_plugin.output.private_files import write_file

MEMORY = "/dev/shm"  # noqa: S108  a private folder is created in it
_PREFIX = "klearstack-vault-exec-"
_TRIES = 10  # another process may remove a new folder as a leftover before it is locked
_log = logging.getLogger(__name__)


class TokenFiles:
    """Files of mode 0600 with these texts, for the duration of a `with` block; `paths` has their paths by name.

    Raises OutputError if they cannot be created.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._warned = False
        self.paths: dict[str, str] = {}

    def __enter__(self) -> Self:
        failure: OutputError | None = None
        for parent in _parents():
            try:
                self._folder, self._lock = _created(parent)
            except OSError as exc:
                failure = OutputError(f"No folder can be created for the token file ({exc.strerror}).")
                continue
            self.paths = {name: str(self._folder / name) for name in self._texts}
            try:
                self.restore()
            except OutputError as exc:  # such as a full file system
                self.__exit__()
                failure = exc
            else:
                return self
        raise failure or AssertionError

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def restore(self) -> None:
        """Write each file that is missing. Raises OutputError."""
        for name, path in self.paths.items():
            if not os.path.lexists(path):
                with suppress(OSError):  # write_file raises the error
                    self._folder.mkdir(mode=0o700)
                write_file(Path(path), self._texts[name])

    def keep(self) -> None:
        """Restore files that another program has removed; logs a failure once instead of raising it."""
        try:
            self.restore()
        except KlearstackVaultError as exc:
            if not self._warned:
                _log.warning("the token file was removed and cannot be written again: %s", exc)
            self._warned = True


def _parents() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        yield runtime
    yield MEMORY
    try:
        yield tempfile.gettempdir()
    except FileNotFoundError:  # whose text lists all folders
        yield "/tmp"  # noqa: S108  the error names its cause


def _created(parent: str) -> tuple[Path, int]:
    """Create a folder; returns it and its locked descriptor. Raises OSError."""
    _remove_leftovers(parent)
    for _ in range(_TRIES):
        name = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        descriptor = -1
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _is_locked(descriptor) and os.fstat(descriptor).st_nlink:
                return Path(name), descriptor
        except FileNotFoundError:
            pass
        if descriptor >= 0:
            os.close(descriptor)
    raise FileExistsError(0, "another process keeps removing it")


def _is_locked(descriptor: int) -> bool:
    """Lock the folder; False if another process holds the lock. True without locks, since no process then removes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _remove_leftovers(parent: str) -> None:
    with suppress(OSError), os.scandir(parent) as found:
        for entry in found:
            if entry.name.startswith(_PREFIX) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_leftover(entry.path)


def _remove_leftover(path: str) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(descriptor)
