"""The formats of a manifest, and how its file is opened."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from vault_plugin.errors import SettingsError, UsageError
from vault_plugin.manifest.csv_rows import read_csv
from vault_plugin.manifest.jsonl_rows import read_jsonl
from vault_plugin.manifest.row import Problem, Row
from vault_plugin.manifest.yaml_rows import read_yaml

FORMATS: dict[str, Callable[[BinaryIO], Iterator[Row | Problem]]] = {
    "yaml": read_yaml,
    "jsonl": read_jsonl,
    "csv": read_csv,
}
_EXTENSIONS = {".yaml": "yaml", ".yml": "yaml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def format_of(path: str, form: str | None, hint: str = f"--format takes {', '.join(FORMATS)}.") -> str:
    """Return the given format, or that of the file extension; standard input is YAML. Raises UsageError with that hint."""
    found = form or ("yaml" if path == "-" else _EXTENSIONS.get(Path(path).suffix.lower()))
    if found is None:
        raise UsageError(
            "The manifest's file extension does not name a format.",
            hint=hint,
        )
    return found


@contextmanager
def rewindable(path: str) -> Iterator[BinaryIO]:
    """Open a manifest's file; `-` is standard input, which like a pipe is first copied to an unnamed file.

    Raises SettingsError if it cannot be read.
    """
    try:
        file: BinaryIO = sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115  closed below
        if path == "-" or not file.seekable():
            copy = tempfile.TemporaryFile()  # noqa: SIM115  as above
            with file:
                shutil.copyfileobj(file, copy)
            file = cast(BinaryIO, copy)
    except (OSError, AttributeError) as exc:  # AttributeError: standard input is closed
        raise SettingsError(f"The manifest cannot be read ({getattr(exc, 'strerror', 'closed')}).") from None
    with file:
        yield file
