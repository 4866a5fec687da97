"""The texts that people read, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COLLECTION = "ansible/ansible_collections/klearstack/vault"
# All Markdown that this repository's users and maintainers read.
PAGES = sorted(
    str(path.relative_to(ROOT))
    for place in ("*.md", "docs/*.md", "examples/**/*.md", f"{COLLECTION}/README.md")
    for path in ROOT.glob(place)
)
_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block; `note` is the HTML comment on the line before it.

    Blocks of the shell are run by tests/examples/test_commands.py, unless their note is one of these:
    `run by PATH::TEST` (another test runs it), `not run: WHY` (it needs what no test has).
    """

    page: str
    note: str
    language: str
    text: str

    @property
    def is_shell(self) -> bool:
        return self.language == "sh"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    for found in _FENCE.finditer(read(page)):
        yield Block(page, found["note"] or "", found["language"], found["text"])


def policy(text: str) -> str:
    """The policy in that text that all of them show."""
    (found,) = re.findall(r"policy write klearstack - <<'HCL'\n(.*?)^HCL$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def block(page: str, start: str) -> str:
    """The text of the one block of a page that begins so."""
    (found,) = [one.text for one in blocks(page) if one.text.startswith(start)]
    return found
