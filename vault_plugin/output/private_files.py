"""Private files, replaced atomically: a reader sees the old or the new content, never a part.

Only regular files are replaced, and symbolic links that lead to one or nowhere.
"""

import errno
import logging
import os
from contextlib import suppress
from io import FileIO
from itertools import takewhile
from pathlib import Path
from stat import S_IFMT, S_IFREG, S_IMODE, S_ISGID, S_ISREG
from typing import NamedTuple

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output.streams import write_all
from vault_plugin.output.temporary import NO_WAIT, discard, removed_on_signals, temporary_file

_warned: set[Path] = set()
_log = logging.getLogger(__name__)


class Rights(NamedTuple):
    """Mode of a file, and the ids of its owner and group; -1 leaves one unchanged."""

    mode: int = 0o600
    owner: tuple[int, int] | None = None


PRIVATE = Rights()


def write_file(path: Path, text: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a secret to a file, atomically.

    A single bind-mounted file, which cannot be replaced, is rewritten in place, with a warning.

    Raises OutputError if no file can be created there, WriteError if it cannot be written; the old file then stays.
    """
    os.close(_replaced(path, text.encode(), Rights(mode, owner)))


def open_private(path: Path) -> FileIO:
    """Open a new, empty file of mode 0600 in place of the old one, unbuffered. Raises OutputError."""
    return FileIO(_replaced(path, b"", PRIVATE), "w")


def holds(path: Path, text: str, rights: Rights) -> bool:
    """Whether the file already has this content and these rights. Raises OutputError if it is not a regular file."""
    must_be_replaceable(path)
    try:
        with FileIO(os.open(path, os.O_RDONLY | NO_WAIT), "r") as file:
            about = os.fstat(file.fileno())
            ids = zip(rights.owner or (-1, -1), (about.st_uid, about.st_gid), strict=True)
            fits = S_IMODE(about.st_mode) == rights.mode and all(one in (-1, found) for one, found in ids)
            return fits and S_ISREG(about.st_mode) and file.read(len(text.encode()) + 1) == text.encode()
    except OSError:  # missing, unreadable, or a symbolic link
        return False


def file_type(path: Path) -> int:
    """Return the type (S_IFMT) of the file, following symbolic links; 0 if there is none. Raises OutputError."""
    try:
        return S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return 0
    except OSError as exc:
        raise _not_created(path, exc) from None


def must_be_replaceable(path: Path) -> None:
    """Raise OutputError if the path exists and is not a regular file."""
    if file_type(path) not in (0, S_IFREG):
        raise OutputError(f"{path} is not a regular file.", hint="Name another file.")


def must_be_creatable(path: Path) -> None:
    """Raise OutputError if no file can be created there; tries it with a temporary file."""
    must_be_replaceable(path)
    with removed_on_signals():
        try:
            descriptor, name = temporary_file(path)
        except OSError as exc:
            if not (_is_mounted(path) and os.access(path, os.W_OK)):
                raise _not_created(path, exc) from None
        else:
            discard(descriptor, name)


def make_folders(folder: Path, rights: Rights) -> None:
    """Create a folder for a file of these rights, and its parents, with no further rights, whatever the umask.

    Raises OSError.
    """
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    readers = rights.mode & 0o044
    for one in reversed(missing):
        try:
            one.mkdir(0o700)
        except FileExistsError:  # another thread created it
            continue
        if rights.owner is not None:
            os.chown(one, *rights.owner)
        one.chmod(0o700 | readers | readers >> 2 | one.stat().st_mode & S_ISGID)


def _replaced(path: Path, content: bytes, rights: Rights) -> int:
    """Replace the file, and return the descriptor of the new one."""
    must_be_replaceable(path)
    with removed_on_signals():
        try:
            descriptor, name = temporary_file(path, -1 if rights.owner is None else rights.owner[0])
        except OSError as exc:
            if _is_mounted(path):
                return _rewritten(path, content, rights)
            raise _not_created(path, exc) from None
        try:
            _fill(descriptor, content, rights)
            os.replace(name, path)  # noqa: PTH105
            kept = os.dup(descriptor)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                return _rewritten(path, content, rights)
            raise _not_written(path, exc) from None
        finally:
            discard(descriptor, name)
        return kept


def _fill(descriptor: int, content: bytes, rights: Rights) -> None:
    write_all(descriptor, content)
    if rights.owner is not None:
        os.fchown(descriptor, *rights.owner)
    os.fchmod(descriptor, rights.mode)
    os.fsync(descriptor)


def append_whole(descriptor: int, content: bytes) -> None:
    """Write all of it at the end of a file of ours, or nothing of it. Raises OSError."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        write_all(descriptor, content)
    except OSError:
        with suppress(OSError):  # the first one is the one to tell
            os.ftruncate(descriptor, end)
        raise


def _is_mounted(path: Path) -> bool:
    """Whether this path is a mount point, such as a single file that is mounted into a container."""
    wanted = str(path.parent.resolve() / path.name)
    with (
        suppress(OSError),
        Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as file,
    ):
        for line in file:
            point = line.split(" ")[4]
            for char in " \t\n\\":
                point = point.replace(f"\\{ord(char):03o}", char)
            if point == wanted:
                return True
    return False


def _rewritten(path: Path, content: bytes, rights: Rights) -> int:
    """Rewrite a file that cannot be replaced, and return its descriptor."""
    try:
        descriptor = os.open(path, os.O_WRONLY | NO_WAIT)
    except OSError as exc:
        raise _not_written(path, exc) from None
    try:
        _overwrite(descriptor, content, rights)
    except OSError as exc:
        os.close(descriptor)
        raise _not_written(path, exc) from None
    if path not in _warned:
        _warned.add(path)
        _log.warning("%s is a mount point and cannot be replaced atomically; it was rewritten in place", path)
    return descriptor


def _overwrite(descriptor: int, content: bytes, rights: Rights) -> None:
    about = os.fstat(descriptor)
    if not S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if rights.owner is not None:
        os.fchown(descriptor, *rights.owner)
    if S_IMODE(about.st_mode) != rights.mode:
        os.fchmod(descriptor, rights.mode)
    if os.write(descriptor, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)


def _not_created(path: Path, exc: OSError) -> OutputError:
    return OutputError(f"No file can be created in {path.parent} ({exc.strerror}).")


def _not_written(path: Path, exc: OSError) -> WriteError:
    return WriteError(f"{path} cannot be written ({exc.strerror}).")
