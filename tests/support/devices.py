"""Devices of a test's own: as root, a fault in what writes to one would replace the machine's."""

import os
import stat
from pathlib import Path

from support import notes

_NUMBERS = {"null": (1, 3), "full": (1, 7)}  # Linux' major and minor


def device(folder: Path, name: str) -> Path:
    """A device that behaves like /dev/null or /dev/full; skips where this user may make none."""
    path = folder / name
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*_NUMBERS[name]))
        path.open("wb").close()
    except OSError as failure:
        raise notes.skipped(
            f"no device can be made here ({failure.strerror}; it takes root)", "what is written to devices"
        ) from None
    return path
