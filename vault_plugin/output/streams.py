"""Standard input, output and error of the process, in whatever state the caller left their descriptors.

By default, Python encodes its output as PYTHONIOENCODING says, prints nothing if a descriptor is closed, and changes the
exit code to 120 if standard error cannot be written.
"""

import fcntl
import os
import sys
from contextlib import suppress
from errno import EBADF
from io import RawIOBase, TextIOWrapper, UnsupportedOperation
from select import POLLIN, POLLOUT, poll
from typing import Any, BinaryIO

from vault_plugin.errors import QueryError, WriteError
from vault_plugin.timing.deadline import Deadline

_CLOSED = "it is closed"


class _Descriptor(RawIOBase):
    """A standard stream for writing, without a buffer, so that nothing is left to fail when Python exits."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_all(self._number, data)
        return len(data)


class _Output(_Descriptor):
    def write(self, data: Any) -> int:
        """Raises WriteError."""
        try:
            return super().write(data)
        except OSError as exc:
            raise _unwritable(exc) from None


class _Messages(_Descriptor):
    def write(self, data: Any) -> int:
        """Write what can be written: a lost message does not change the exit code."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def install() -> None:
    """Replace Python's streams by those of this module.

    Closed descriptors are opened first: otherwise a file or connection would get such a number and receive the output.
    Programs started from here still find them closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)  # it fails with EBADF when used
    sys.stdout = _text(_Output(1), "surrogateescape")
    sys.stderr = _text(_Messages(2), "backslashreplace")


def require_output() -> None:
    """Raise WriteError if standard output cannot be written; called before any request."""
    try:
        mode = fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as exc:
        raise _unwritable(exc) from None
    if mode == os.O_RDONLY:  # `install` opens a closed one like this
        raise _unwritable(OSError(EBADF, _CLOSED))


def read_query(limit: int, deadline: Deadline) -> bytes:
    """Read another program's query from standard input, at most `limit` bytes.

    Raises QueryError if it cannot be read, or has not ended by the deadline.
    """
    try:
        return _received(limit, deadline)
    except TimeoutError:
        raise QueryError(
            "No complete query arrived on standard input before the deadline passed.",
            hint="The calling program has to write it and to close standard input.",
        ) from None
    except (AttributeError, OSError) as exc:  # AttributeError: Python found it closed
        raise QueryError(
            f"Standard input cannot be read ({reason(exc)}).", hint="The query is expected there."
        ) from None


def read_line(limit: int, deadline: Deadline) -> bytes:
    """The next line of standard input with its end, or its first bytes, up to so many; nothing beyond it is read.

    Raises TimeoutError if it does not end by the deadline; AttributeError and OSError if it cannot be read.
    """
    line = b""
    while len(line) < limit and not line.endswith(b"\n") and (byte := _received(1, deadline)):
        line += byte
    return line


def arrived(source: BinaryIO, limit: int, deadline: Deadline) -> bytes:
    """The next bytes of a file or pipe, at most so many; none at its end. Raises TimeoutError and OSError.

    Past Python's buffer, which a thread would have to wait for, and which takes a pause of a non-blocking pipe for its end.
    """
    try:
        number = source.fileno()
    except UnsupportedOperation:  # it is in memory
        return source.read(limit)
    ready = poll()
    ready.register(number, POLLIN)
    while True:
        if ready.poll(min(deadline.left(), 60.0) * 1000):
            with suppress(BlockingIOError):  # another process was faster
                return os.read(number, limit)
        elif not deadline.left():
            raise TimeoutError


def reason(exc: Exception) -> str:
    """Why a standard stream cannot be read or written: what the system says, or that it is closed."""
    return str(exc.strerror) if isinstance(exc, OSError) and exc.errno != EBADF else _CLOSED


def _received(limit: int, deadline: Deadline) -> bytes:
    """So many bytes of standard input, or all until its end."""
    received = b""
    while len(received) < limit and (part := arrived(sys.stdin.buffer, limit - len(received), deadline)):
        received += part
    return received


def write_all(number: int, content: bytes) -> None:
    """Write the whole content to a descriptor, by as many writes as it takes. Raises OSError."""
    rest = memoryview(content)
    while rest:  # a pipe or a disk that fills up takes a part; a full disk fails at the next write
        try:
            rest = rest[os.write(number, rest) :]
        except BlockingIOError:  # the caller has made it non-blocking
            _wait(number, POLLOUT)


def _text(stream: _Descriptor, errors: str) -> TextIOWrapper:
    raw: Any = stream  # typeshed requires a `name`, which nothing uses
    return TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="", write_through=True)


def _wait(number: int, event: int) -> None:
    ready = poll()
    ready.register(number, event)
    ready.poll()


def _unwritable(exc: OSError) -> WriteError:
    return WriteError(f"Standard output cannot be written ({reason(exc)}).")
