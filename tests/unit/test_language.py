"""Texts for users and maintainers say things as the documentation of Vault, Ansible and Kubernetes does."""

import re
from collections.abc import Iterator

import pytest
from support.pages import COLLECTION, PAGES, ROOT, read

# Phrases that are wrong in any sentence, in small letters, and what to say instead.
WRONG = {
    r"at one blow": "atomically",
    r"to the letter": "exactly as given, read as strings",
    r"(still|no|while|for a|as long as it is) good\b(?! for)": "valid",
    r"good (access |stored )?tokens?\b|tokens? (is|are) good": "a valid token; a token with enough lifetime left",
    r"tokens? that (still )?lives?": "a token that has not expired",
    r"\b(still|it|which|they) (lives?|dies?)\b": "is valid, expires",
    r"\banew\b": "again; re-reads, authenticates again, reloads",
    r"sees? to (it|them|that)": "validates",
    r"\bt(ells?|old) (of|apart)\b": "reports, distinguishes",
    r"gives? no answer|no answer in time": "is not reachable, did not respond",
    r"somebody else's": "unmanaged; another user's",
    r"does what is left|what is left of it": "processes the remaining identities",
    r"does not tell\b": "default: file extension",
    r"nothing for others": "no permissions for others",
    r"answers? prometheus": "exposes Prometheus metrics on",
    r"bugs? of ours": "internal error",
    r"makes? no sense": "usage error",
    r"will not do\b": "is invalid",
    r"misses a": "reports a missing ...",
    r"hands? (it |them |the token |a token )?over\b": "prints, passes",
    r"\b(is|are) gone\b": "is deleted, does not exist",
    r"for ever\b": "without limit",
    r"near (its|their) end": "about to expire",
    r"asks? to slow down": "rate limit",
    r"put into words": "explain",
    r"whichever it is": "in both cases",
}
_KINDS = {".1", ".md", ".rst", ".yml", ".yaml", ".tf", ".sh", ".service", ".hcl", ".txt", ".py", ""}
FOLDERS = (
    "vault_plugin",
    "examples",
    "docs/man",
    *(f"{COLLECTION}/{name}" for name in ("changelogs", "docs", "meta", "plugins")),
)


def texts() -> list[str]:
    """All pages, the package, the examples with their comments, and the collection with its documentation."""
    found = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in _KINDS and "__pycache__" not in path.parts
    }
    return sorted(found | {*PAGES, f"{COLLECTION}/galaxy.yml"})


def sentences(text: str) -> str:
    """The text in one line, without the signs that begin the lines of a comment."""
    return " ".join(re.sub(r"^\s*(#|//|\*|-)+\s", " ", text, flags=re.MULTILINE).split())


def wrong(text: str) -> Iterator[str]:
    line = sentences(text).casefold()  # since a search that ignores case takes three times as long
    for phrase, better in WRONG.items():
        for found in re.finditer(phrase, line):
            yield f"{found[0]!r}: say {better!r}"


def test_no_text_uses_a_phrase_that_is_never_right() -> None:
    assert texts()
    assert not re.search(r"(?<!\\)[A-Z]", "".join(WRONG)), "a phrase with capitals would be found nowhere"
    for name in texts():
        assert list(wrong(read(name))) == [], name


@pytest.mark.parametrize(
    "text", ["It is read\n# anew.", "To\nthe letter", "the good token", "the line makes\n  no sense"]
)
def test_a_wrong_phrase_is_found_across_lines(text: str) -> None:
    assert list(wrong(f"# {text}"))
