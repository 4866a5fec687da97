"""Token files for a command: in memory where there is such a file system, and only for as long as we run.

The folder is locked (flock) while its process runs: what a killed one left behind is removed by the next one.
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

MEMORY = "/dev/shm"  # noqa: S108  a folder of our own is made in it
_PREFIX = "klearstack-vault-exec-"
_TRIES = 10  # another process may take a new folder for a leftover before it is locked
_log = logging.getLogger(__name__)


class TokenFiles:
    """Each text in a file of mode 0600, from entering the `with` block until it is left. `paths` are by the texts' names.

    Raises OutputError if there can be none.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._told = False
        self.paths: dict[str, str] = {}

    def __enter__(self) -> Self:
        failure: OutputError | None = None
        for parent in _parents():
            try:
                self._folder, self._lock = _made(parent)
            except OSError as exc:
                failure = OutputError(f"No folder can be made for the token's file ({exc.strerror}).")
                continue
            self.paths = {name: str(self._folder / name) for name in self._texts}
            try:
                self.restore()
            except OutputError as exc:  # no room, for example
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
                with suppress(OSError):  # write_file tells what is wrong
                    self._folder.mkdir(mode=0o700)
                write_file(Path(path), self._texts[name])

    def keep(self) -> None:
        """The same, for whoever removes what looks old; a failure is logged once."""
        try:
            self.restore()
        except KlearstackVaultError as exc:
            if not self._told:
                _log.warning("the token's file has vanished, and cannot be written again: %s", exc)
            self._told = True


def _parents() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        yield runtime
    yield MEMORY
    try:
        yield tempfile.gettempdir()
    except FileNotFoundError:  # which names all folders it tried
        yield "/tmp"  # noqa: S108  says why there is none


def _made(parent: str) -> tuple[Path, int]:
    """A new folder and its locked descriptor. Raises OSError."""
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
    raise FileExistsError(0, "another process removes it")


def _is_locked(descriptor: int) -> bool:
    """Lock it. False if another process has the lock; True also where there are no locks, and so nobody removes it."""
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
