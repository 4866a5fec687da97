"""How messages name settings: as a flag on the command line, a query key in Terraform, an option in Ansible.

A message is made where it is unknown which interface will show it. `named` marks a setting in a text, and `worded`
replaces each mark by the interface's name for it. Besides the settings there are marks for what only some interfaces
have: `renew`, `verbose` and `help`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Words = Callable[[str], str]
_MARK = "\x02([a-z_]+)\x03"  # control characters that no valid input contains


def flag(name: str) -> str:
    """Return the option on the command line."""
    return f"--{name.replace('_', '-')}"


# The last one applies; the first one is the default, for when no interface is active.
_interfaces: list[Words] = [flag]


def named(name: str) -> str:
    """Mark the setting of that name in a message or hint."""
    return f"\x02{name}\x03"


def worded(text: str) -> str:
    """Return the text with each marked setting as the active interface names it."""
    return re.sub(_MARK, lambda mark: _interfaces[-1](mark[1]), text)


def by_default(words: Words) -> None:
    """Use these words where no interface is active."""
    _interfaces[0] = words


def speak(words: Words) -> None:
    """Use these words until the end of the enclosing `speaking` block."""
    _interfaces[-1] = words


@contextmanager
def speaking(words: Words | None = None) -> Iterator[None]:
    """Use these words, or those of a later `speak`, inside the block."""
    _interfaces.append(words or _interfaces[-1])
    try:
        yield
    finally:
        _interfaces.pop()
