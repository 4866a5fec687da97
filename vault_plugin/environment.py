"""Text from environment variables, and from the files that they name: UTF-8, whatever the locale says."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vault_plugin import blocking
from vault_plugin.errors import SettingsError
from vault_plugin.retry import Deadline


class Found(NamedTuple):
    """What a variable says, or the file that it names; `place` says so of a file, as a part of a sentence."""

    text: str
    place: str


def process_environment() -> Mapping[str, str]:
    """This process's environment. What is not UTF-8 is escaped (`surrogateescape`), as Python does it.

    The command line always runs in UTF-8; another program that imports us may not.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return os.environ
    return {
        name.decode("utf-8", "surrogateescape"): text.decode("utf-8", "surrogateescape")
        for name, text in os.environb.items()
    }


def look_up(names: Sequence[str], environ: Mapping[str, str], deadline: Deadline) -> Found | None:
    """What the first of these variables says that is not empty, or the file that `<name>_FILE` names.

    Raises ValueError if that file cannot be read, SettingsError if not before the deadline.
    """
    for name in names:
        if value := environ.get(name):
            return Found(value, "")
        if path := environ.get(f"{name}_FILE"):
            text = text_of_file(Path(path), f"cannot be read from the file that {name}_FILE names", deadline)
            return Found(text, f", as read from the file that {name}_FILE names,")
    return None


def text_of_file(path: Path, complaint: str, deadline: Deadline) -> str:
    """The file's text without its final line end. Raises ValueError with that complaint if it cannot be read.

    A FIFO that nobody writes to, or a network file system, may keep it back: SettingsError at the deadline.
    """
    try:
        return without_line_end(blocking.call(f"file {path}", path.read_bytes, deadline.left()).decode())
    except TimeoutError:
        raise SettingsError(
            f"{path} could not be read before the deadline passed.",
            hint="A FIFO needs somebody who writes to it.",
        ) from None
    except (OSError, UnicodeDecodeError):
        raise ValueError(complaint) from None


def without_line_end(text: str) -> str:
    """The text without its last LF or CRLF. Only one: what else there is may be a mistake, and is not hidden."""
    return re.sub(r"\r?\n\Z", "", text)


def is_readable(path: str) -> bool:
    """Whether this process may read the file of that name."""
    try:
        return os.access(path, os.R_OK)
    except ValueError:  # a NUL, which only a file can hold
        return False
