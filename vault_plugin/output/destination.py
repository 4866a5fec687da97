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
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IMODE, S_ISCHR, S_ISFIFO, S_ISVTX

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output.private_files import (
    append_whole,
    file_type,
    must_be_creatable,
    open_private,
    write_file,
)
from vault_plugin.output.streams import require_output, write_all
from vault_plugin.output.temporary import removed_on_signals
from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline

STDOUT = 1
MIN_WRITE_TIMEOUT = 0.5  # seconds, even if the deadline is closer
LINE_TIMEOUT = 60.0  # seconds that a device or FIFO may take for one line
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": STDOUT, "/dev/stderr": 2}


class Output:
    """A destination by its name; `-` is standard output. Raises OutputError if nothing can be written there.

    With `secret`, also if other users could read there what is written, or it would be shown on a terminal.
    """

    def __init__(self, name: str, *, secret: bool = False) -> None:
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
        if secret and (self.descriptor is not None or self._is_stream):
            self._must_be_private()

    def write(self, text: str, deadline: Deadline) -> None:
        """Write the whole text before the deadline. Raises OutputError, WriteError."""
        limit = Deadline(max(MIN_WRITE_TIMEOUT, deadline.left()))
        with removed_on_signals(), self._translated():
            self._bounded(lambda: self._write(text, limit), limit)

    @contextmanager
    def lines(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that writes a line; a file is replaced at the start.

        Raises OutputError; the function raises WriteError.
        """
        if self.descriptor is None and not self._is_stream:
            with open_private(self._path) as file:
                yield self._writer(file.fileno(), append_whole)
        elif self.descriptor is None:
            with self._translated():
                limit = Deadline(LINE_TIMEOUT)
                descriptor = blocking.call("output", self._opened, limit.left(), discard=os.close)
            with closing(FileIO(descriptor, "w")):
                yield self._writer(descriptor)
        else:
            yield self._writer(self.descriptor)

    def _writer(
        self, descriptor: int, how: Callable[[int, bytes], None] = write_all
    ) -> Callable[[bytes], None]:
        def write(content: bytes) -> None:
            with self._translated():
                self._bounded(lambda: how(descriptor, content), Deadline(LINE_TIMEOUT))

        return write

    def _write(self, text: str, limit: Deadline) -> None:
        if self.descriptor is not None:
            write_all(self.descriptor, text.encode())
        elif self._is_stream:
            with FileIO(self._opened(), "w") as file:
                if limit.left():  # after the deadline, the caller no longer waits
                    write_all(file.fileno(), text.encode())
        else:
            write_file(self._path, text)

    def _opened(self) -> int:
        """Open the device, or the FIFO once a process reads from it. Raises OSError."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        if S_IFMT(os.fstat(descriptor).st_mode) == S_IFREG:  # it was replaced meanwhile
            os.close(descriptor)
            raise OSError(0, "it has become a regular file")
        return descriptor

    @staticmethod
    def _bounded(task: Callable[[], None], limit: Deadline) -> None:
        blocking.call("output", task, limit.left())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise WriteError(
                f"{self._shown} was not written before the deadline passed.",
                hint="A FIFO needs a process that reads from it.",
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
        if mode == os.O_RDONLY:  # streams.install opens a closed one like this
            raise OutputError(f"{self._shown} cannot be written (it is not open for writing).")

    def _must_be_private(self) -> None:
        """Raise OutputError if what is written to this descriptor, device or FIFO would be shown to others."""
        try:
            place = self._path if self.descriptor is None else self.descriptor
            about = os.stat(place)  # noqa: PTH116  of a path or a descriptor
            terminal = S_ISCHR(about.st_mode) and _is_terminal(place)
        except OSError as exc:
            raise OutputError(f"{self._shown} cannot be written ({exc.strerror}).") from None
        mode = S_IMODE(about.st_mode)
        # What is written to a device that is no terminal, or to a socket, is not kept for those who may open it.
        kept = S_IFMT(about.st_mode) in (S_IFREG, S_IFIFO, S_IFBLK)
        if terminal or (kept and mode & 0o077):
            problem = "is a terminal" if terminal else f"can be read by other users (mode {mode:04o})"
            raise OutputError(
                f"{self._shown} {problem}, and what would be written there is secret.", hint="Name a file."
            )

    def _must_take(self, kind: int) -> None:
        if not os.access(self._path, os.W_OK):
            raise OutputError(
                f"This user has no permission to write {self._shown}.", hint="Name another file."
            )
        # Like the kernel's protected_fifos, which is off on some hosts: in a folder like /tmp, another user may have
        # created the FIFO to read the token.
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
        raise PermissionError(0, "no file can be created there")


@contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that appends a text by one write, on a new line. Both raise OSError."""
    if (descriptor := _descriptor(path)) is not None:
        yield lambda text: write_all(descriptor, text.encode())
        return
    with FileIO(_opened_for_appending(path, os.O_CREAT), "w") as file:
        yield lambda text: write_all(file.fileno(), (text if _ends_line(path) else f"\n{text}").encode())


def _opened_for_appending(path: Path, flags: int) -> int:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | flags, 0o666
    )
    if S_IFMT(os.fstat(descriptor).st_mode) not in (S_IFREG, S_IFCHR):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")
    return descriptor


def _ends_line(path: Path) -> bool:
    """Whether appended text starts on a new line; False if the file cannot be read."""
    if file_type(path) != S_IFREG:
        return True
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            return file.read() in (b"", b"\n")
    except OSError:
        return False


def _is_terminal(place: Path | int) -> bool:
    """Whether this character device is one. Raises OSError."""
    if isinstance(place, int):
        return os.isatty(place)
    descriptor = os.open(place, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    with closing(FileIO(descriptor, "w")):
        return os.isatty(descriptor)


def _descriptor(path: Path) -> int | None:
    """Return the open descriptor that this path names (/dev/stdout, /dev/fd/N, `>(command)`), if any."""
    folder = os.path.realpath(path.parent)
    own = os.path.realpath("/proc/self")  # the process id in the namespace of this /proc
    if re.fullmatch(rf"/dev/fd|{own}(/task/\d+)?/fd", folder) and re.fullmatch(r"[0-9]{1,9}", path.name):
        return int(path.name)
    return _STANDARD.get(f"{folder}/{path.name}")
