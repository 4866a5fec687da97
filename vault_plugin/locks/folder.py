"""The folder of the lock files, which all processes of a host share: it belongs to this user alone."""

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vault_plugin.errors import OutputError
from vault_plugin.wording import named


class LockFolder:
    """The folder of the settings, or else one among the temporary files. It is not looked at before it is used.

    As text, it is the folder that was used last, or that could not be used.
    """

    def __init__(self, folder: str | None, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        # Not the working directory, which tempfile would take as well: other processes have another one.
        temporary = [environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")] + ["/tmp", "/var/tmp"]  # noqa: S108
        self._folder = folder
        self._temporary = [Path(os.path.abspath(one)) for one in temporary if one]  # noqa: PTH100
        self._named = folder or str(_own(self._temporary[0]))

    def __str__(self) -> str:
        return self._named

    def open(self, name: str) -> int:
        """Open a regular file in the folder, creating both if necessary; return its descriptor.

        Raises OSError, and OutputError if no folder is usable.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._located() / name, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(0, "it is not a regular file")
        return descriptor

    def _located(self) -> Path:
        if self._folder is not None:
            return self._private(Path(self._folder))
        for folder in map(_own, self._temporary):
            try:
                created = _created(folder)
                if os.access(created, os.W_OK | os.X_OK):
                    self._named = str(folder)
                    return created
                failure = OSError(errno.EACCES, "it is not writable")
            except OSError as exc:
                failure = exc
        self._named = str(folder)  # the one with this failure
        raise failure

    def _private(self, folder: Path) -> Path:
        """Return the folder, or, if others may write to it, one in it that belongs to this user."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        if _is_private(folder):
            return folder
        kind = folder.lstat().st_mode
        if stat.S_ISREG(kind):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not stat.S_ISDIR(kind) or not os.access(folder, os.W_OK | os.X_OK):
            raise _not_private(folder)
        return _created(_own(folder))


def _own(folder: Path) -> Path:
    return folder / f"klearstack-vault-{os.getuid()}"


def _created(folder: Path) -> Path:
    """Create the folder unless it exists. In /tmp, another user may have created a folder or link of that name first."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        raise _not_private(folder)
    return folder


def _is_private(folder: Path) -> bool:
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022


def _not_private(folder: Path) -> OutputError:
    return OutputError(
        f"The lock folder {folder} is not this user's own.",
        hint=f"Remove it, or name another with {named('lock_dir')}.",
    )
