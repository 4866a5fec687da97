"""Where a host's processes meet: a folder that belongs to this user alone, also inside one that is shared."""

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vault_plugin.errors import OutputError
from vault_plugin.wording import named


class LockFolder:
    """The folder that was named, or else one among the temporary files. Nothing is looked at before it is used."""

    def __init__(self, folder: str | None, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        # Not the working directory, which tempfile would take, too: processes would not meet there.
        temporary = [environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")] + ["/tmp", "/var/tmp"]  # noqa: S108
        self._named = folder
        self._temporary = [Path(os.path.abspath(one)) for one in temporary if one]  # noqa: PTH100

    def __str__(self) -> str:
        return self._named or str(_own(self._temporary[0]))

    def open(self, name: str) -> int:
        """The descriptor of a regular file in it, made if need be. Raises OSError; OutputError if no folder will do."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._located() / name, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(0, "it is not a regular file")
        return descriptor

    def _located(self) -> Path:
        if self._named is not None:
            return self._private(Path(self._named))
        failure = OSError(errno.EROFS, "no temporary folder can be written")
        for folder in self._temporary:
            try:
                made = _made(_own(folder))
            except OSError as exc:
                failure = exc
            else:
                if os.access(made, os.W_OK | os.X_OK):
                    return made
        raise failure

    def _private(self, folder: Path) -> Path:
        """The folder, or, if others may write there, one of ours in it."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        if _is_ours(folder):
            return folder
        kind = folder.lstat().st_mode
        if stat.S_ISREG(kind):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not stat.S_ISDIR(kind) or not os.access(folder, os.W_OK | os.X_OK):
            raise _not_ours(folder)
        return _made(_own(folder))


def _own(folder: Path) -> Path:
    return folder / f"klearstack-vault-{os.getuid()}"


def _made(folder: Path) -> Path:
    """In /tmp anybody might have put a folder or a link of that name before us."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_ours(folder):
        raise _not_ours(folder)
    return folder


def _is_ours(folder: Path) -> bool:
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022


def _not_ours(folder: Path) -> OutputError:
    return OutputError(
        f"The lock folder {folder} is not this user's own.",
        hint=f"Remove it, or name another with {named('lock_dir')}.",
    )
