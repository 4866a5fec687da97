"""What settings are called in messages: errors carry a setting's own name, and the face that shows them has its words for it.

A message is made where nobody knows who will show it: the command line has flags, Terraform the keys of a query, Ansible
options. `named` marks a setting in a text, and `worded` puts the face's words in the place of each mark. Besides the
settings of settings.py there are names for what only some faces have: `renew`, `verbose` and `help`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Words = Callable[[str], str]
_MARK = re.compile("\x02([a-z_]+)\x03")  # no text that anybody may type has these two


def flag(name: str) -> str:
    """The option of the command line."""
    return f"--{name.replace('_', '-')}"


_faces: list[Words] = [
    flag
]  # the last one shows the messages of this process; the first one if no face has begun


def named(name: str) -> str:
    """The setting of that name, to be put into a message or hint."""
    return f"\x02{name}\x03"


def worded(text: str) -> str:
    """The text in the words of the face that shows it."""
    return _MARK.sub(lambda mark: _faces[-1](mark[1]), text)


def by_default(words: Words) -> None:
    """Have messages in these words where no face has others."""
    _faces[0] = words


def speak(words: Words) -> None:
    """Have messages in these words until the end of the `speaking` around it."""
    _faces[-1] = words


@contextmanager
def speaking(words: Words | None = None) -> Iterator[None]:
    """Have messages in these words, or those of a later `speak`, inside."""
    _faces.append(words or _faces[-1])
    try:
        yield
    finally:
        _faces.pop()
