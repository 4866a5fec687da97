"""Where a result goes: standard output, another open descriptor, a device or FIFO, or a private file.

What can be refused is refused when the destination is named, before a token is requested.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_ISFIFO, S_ISVTX

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output.private_files import (
    append_whole,
    file_type,
    must_be_creatable,
    open_private,
    write_all,
    write_file,
)
from vault_plugin.output.streams import require_output
from vault_plugin.output.temporary import removed_on_signals
from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline

STDOUT = 1
LEAST = 0.5  # seconds that writing gets in any case
PATIENCE = 60.0  # seconds that a device or FIFO may take for one line
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": STDOUT, "/dev/stderr": 2}


class Output:
    """A destination by its name; `-` is standard output. Raises OutputError if nothing can be written there."""

    def __init__(self, name: str) -> None:
        self._path = Path(name)
        self.descriptor = STDOUT if name == "-" else _descriptor(self._path)
        self._shown = "Standard output" if name == "-" else name
        self._is_stream = False  # a device or FIFO
        if self.descriptor is not None:
            self._must_be_open(self.descriptor)
        elif (kind := file_type(self._path)) in (S_IFCHR, S_IFBLK, S_IFIFO):
            self._is_stream = True
            self._must_take(kind)
        elif kind in (0, S_IFREG):
            must_be_creatable(self._path)
        else:
            raise OutputError(
                f"{name or 'An empty name'} is not a file that can be written.",
                hint="Name a file, a device or a FIFO.",
            )

    def write(self, text: str, deadline: Deadline) -> None:
        """Write it all before the deadline. Raises OutputError, WriteError."""
        limit = Deadline(max(LEAST, deadline.left()))
        with removed_on_signals(), self._told():
            self._bounded(lambda: self._write(text, limit), limit)

    @contextmanager
    def lines(self) -> Iterator[Callable[[bytes], None]]:
        """What writes lines as they come; a file is replaced at the start. It raises WriteError, this OutputError."""
        if self.descriptor is None and not self._is_stream:
            with open_private(self._path) as file:
                yield self._writer(file.fileno(), append_whole)
        elif self.descriptor is None:
            with self._told():
                limit = Deadline(PATIENCE)
                descriptor = blocking.call("output", self._opened, limit.left(), discard=os.close)
            with closing(FileIO(descriptor, "w")):
                yield self._writer(descriptor)
        else:
            yield self._writer(self.descriptor)

    def _writer(
        self, descriptor: int, how: Callable[[int, bytes], None] = write_all
    ) -> Callable[[bytes], None]:
        def write(content: bytes) -> None:
            with self._told():
                self._bounded(lambda: how(descriptor, content), Deadline(PATIENCE))

        return write

    def _write(self, text: str, limit: Deadline) -> None:
        if self.descriptor is not None:
            write_all(self.descriptor, text.encode())
        elif self._is_stream:
            with FileIO(self._opened(), "w") as file:
                if limit.left():  # else nobody waits for it any more
                    write_all(file.fileno(), text.encode())
        else:
            write_file(self._path, text)

    def _opened(self) -> int:
        """The device's or FIFO's descriptor, when somebody reads it. Raises OSError."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        if S_IFMT(os.fstat(descriptor).st_mode) == S_IFREG:  # it was swapped meanwhile
            os.close(descriptor)
            raise OSError(0, "it has become a regular file")
        return descriptor

    @staticmethod
    def _bounded(task: Callable[[], None], limit: Deadline) -> None:
        blocking.call("output", task, limit.left())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise WriteError(
                f"{self._shown} was not written before the deadline passed.",
                hint="A FIFO needs somebody who reads from it.",
            ) from None
        except OSError as exc:
            raise WriteError(f"{self._shown} cannot be written ({exc.strerror}).") from None

    def _must_be_open(self, descriptor: int) -> None:
        if descriptor == STDOUT:
            require_output()
            return
        try:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as exc:
            raise OutputError(f"{self._shown} cannot be written ({exc.strerror}).") from None
        if mode == os.O_RDONLY:  # as streams.install leaves a closed one
            raise OutputError(f"{self._shown} cannot be written (it is not open for writing).")

    def _must_take(self, kind: int) -> None:
        if not os.access(self._path, os.W_OK):
            raise OutputError(f"{self._shown} may not be written by this user.", hint="Name another file.")
        # As the kernel's protected_fifos does it, which not every host has on: in a folder like /tmp another user could
        # have made it to read the token.
        folder = self._path.resolve().parent.stat()
        owner = self._path.stat().st_uid
        if S_ISFIFO(kind) and folder.st_mode & S_ISVTX and owner not in (os.geteuid(), folder.st_uid):
            raise OutputError(f"{self._shown} is another user's FIFO.", hint="Name another file.")


def must_be_appendable(path: Path) -> None:
    """Raise OSError if nothing can be appended there: to a file, a device or an open descriptor."""
    if (descriptor := _descriptor(path)) is not None:
        os.fstat(descriptor)
    elif path.exists():
        os.close(_opened_for_appending(path, 0))
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(0, "no file can be made there")


def append(path: Path, text: str) -> None:
    """Append by one write, on a line of its own. Raises OSError."""
    if (descriptor := _descriptor(path)) is not None:
        write_all(descriptor, text.encode())
        return
    with FileIO(_opened_for_appending(path, os.O_CREAT), "w") as file:
        write_all(file.fileno(), (text if _ends_line(path) else f"\n{text}").encode())


def _opened_for_appending(path: Path, flags: int) -> int:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | flags, 0o666
    )
    if S_IFMT(os.fstat(descriptor).st_mode) not in (S_IFREG, S_IFCHR):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")
    return descriptor


def _ends_line(path: Path) -> bool:
    """Whether a new line begins after what is there; no if that cannot be read."""
    if file_type(path) != S_IFREG:
        return True
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            return file.read() in (b"", b"\n")
    except OSError:
        return False


def _descriptor(path: Path) -> int | None:
    """The open descriptor that this path names (/dev/stdout, /dev/fd/N, what `>(command)` gives), if it does."""
    folder = os.path.realpath(path.parent)
    own = os.path.realpath("/proc/self")  # the process id, as this /proc counts
    if re.fullmatch(rf"/dev/fd|{own}(/task/\d+)?/fd", folder) and re.fullmatch(r"[0-9]{1,9}", path.name):
        return int(path.name)
    return _STANDARD.get(f"{folder}/{path.name}")
