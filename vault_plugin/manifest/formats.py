"""The formats of a manifest, and how its file is opened."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from math import inf
from pathlib import Path
from typing import BinaryIO

from vault_plugin.errors import OutputError, SettingsError, UsageError, WriteError
from vault_plugin.manifest.csv_rows import read_csv
from vault_plugin.manifest.jsonl_rows import read_jsonl
from vault_plugin.manifest.row import Problem, Row
from vault_plugin.manifest.yaml_rows import read_yaml
from vault_plugin.output.streams import arrived, write_all
from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline

FORMATS: dict[str, Callable[[BinaryIO], Iterator[Row | Problem]]] = {
    "yaml": read_yaml,
    "jsonl": read_jsonl,
    "csv": read_csv,
}
_EXTENSIONS = {".yaml": "yaml", ".yml": "yaml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_PART = 64 * 1024  # bytes, what a pipe holds


def title_of(path: str) -> str:
    """What messages call the manifest at that path, in the middle of a sentence."""
    return "manifest on standard input" if path == "-" else f"manifest {path}"


def format_of(path: str, form: str | None, hint: str = f"--format takes {', '.join(FORMATS)}.") -> str:
    """Return the given format, or that of the file extension; standard input is YAML. Raises UsageError with that hint."""
    found = form or ("yaml" if path == "-" else _EXTENSIONS.get(Path(path).suffix.lower()))
    if found is None:
        raise UsageError(
            f"The file extension of the {title_of(path)} does not name a format.",
            hint=hint,
        )
    return found


@contextmanager
def rewindable(path: str, deadline: Deadline | None = None) -> Iterator[BinaryIO]:
    """Open a manifest's file; `-` is standard input, which like a pipe is first copied to an unnamed file.

    Raises SettingsError if it cannot be read, or has not ended by the deadline; OutputError and WriteError if it cannot be
    copied.
    """
    name = f"The {title_of(path)}"
    with ExitStack() as stack:
        try:
            file = stack.enter_context(sys.stdin.buffer if path == "-" else _opened(path, deadline))
            if path == "-" or not file.seekable():
                with _copying(name, OutputError):
                    # Without a buffer for writing, what is left in it would fail later.
                    copy = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                while part := arrived(file, _PART, deadline or Deadline(inf)):
                    with _copying(name, WriteError):
                        write_all(copy.fileno(), part)
                file = BufferedReader(copy)
        except TimeoutError:
            raise SettingsError(
                f"{name} could not be read before the deadline passed.",
                hint="The program that writes it has to close it.",
            ) from None
        except (OSError, AttributeError) as exc:  # AttributeError: standard input is closed
            raise SettingsError(
                f"{name} cannot be read ({getattr(exc, 'strerror', 'it is closed')})."
            ) from None
        yield file


@contextmanager
def _copying(name: str, error: type[OutputError]) -> Iterator[None]:
    """Raises that error if the temporary folder is at fault."""
    try:
        yield
    except OSError as exc:
        folder = f" {tempfile.tempdir}" if tempfile.tempdir else ""  # none is usable
        raise error(
            f"{name} cannot be copied to the temporary folder{folder} ({exc.strerror}).",
            hint="Name another folder with TMPDIR.",
        ) from None


def read_rows(file: BinaryIO, form: str, title: str) -> Iterator[Row | Problem]:
    """Read the file from its start. Raises SettingsError, which calls it by its title, if it cannot be read."""
    try:
        file.seek(0)
        yield from FORMATS[form](file)
    except OSError as exc:
        raise SettingsError(f"The {title} cannot be read ({exc.strerror}).") from None


def _opened(path: str, deadline: Deadline | None) -> BinaryIO:
    """Raises TimeoutError if nothing has begun to write to a FIFO by the deadline."""
    if deadline is None or not Path(path).is_fifo():
        return Path(path).open("rb")
    return blocking.call(f"file {path}", lambda: Path(path).open("rb"), deadline.left(), BufferedReader.close)
