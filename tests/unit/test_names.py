"""What a name may be spelled with: whatever shows, and nothing that does not."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import is_name
from support.texts import TEXTS

from vault_plugin.tokens.names import checked, is_composed

SPACES = [*re.findall(r"\s", "".join(map(chr, range(sys.maxunicode + 1)))), "\u2800"]
CONTROLS = [*map(chr, (*range(32), *range(0x7F, 0xA0))), "\u2028", "\u2029"]
DIRECTIONS = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
NO_WIDTH = [*"\u00ad\u034f\u180e\u200b\u2060\u2061\u2064\u206f\ufeff\ufff9", "\U000e0041", "\U000e0001"]
FILLERS = [*"\u115f\u1160\u17b4\u3164\uffa0"]
NUKTA, VIRAMA, ZWNJ, ZWJ = "\u093c", "\u094d", "\u200c", "\u200d"


def complaint(text: str) -> str:
    with pytest.raises(ValueError, match=r"^(has|begins|is not)") as caught:
        checked(text)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_a_control_or_invisible_character_is_refused_anywhere() -> None:
    for char in (*CONTROLS, *DIRECTIONS, *NO_WIDTH, *FILLERS):
        for at, text in (
            (1, f"{char}Acme"),
            (3, f"Ac{char}me"),
            (5, f"Acme{char}"),
            (1, char),
            (2, f"ع{char}ع"),
        ):
            assert complaint(text) == (
                f"has the control or invisible character U+{ord(char):04X} at position {at}"
            ), ascii(char)


def test_white_space_of_any_kind_is_refused_at_either_end() -> None:
    for char in SPACES:
        for text in (f"{char}Acme", f"Acme{char}", char):
            assert complaint(text).startswith(("begins or ends with white space", "has the control")), ascii(
                char
            )
        if char not in CONTROLS:
            assert checked(f"Acme{char}Inc") == f"Acme{char}Inc", ascii(char)


def test_what_shows_is_taken_as_it_is() -> None:
    for text in (
        "Acme", "26", "Acme  Inc", "Acme & Sons", "\u00c4hre", "A\u0308hre", "\u682a\u5f0f\u4f1a\u793e", "\u0642\u0661", "\N{GRINNING FACE}", "-", "~",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian: zero-width non-joiner between two letters
        "\u0928\u094d\u200d\u092f",  # Devanagari: zero-width joiner after a virama
        "\u0995\u09cd\u200c\u09b7",  # Bengali
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala, as in Sri Lanka
        "\u2764\ufe0f Acme", "\u845b\U000e0100\u57ce", "\u1820\u180b\u1820",  # variation selectors after what has variants
    ):  # fmt: skip
        assert checked(text) == text, ascii(text)


@pytest.mark.parametrize("joiner", [ZWNJ, ZWJ], ids=ascii)
def test_a_joiner_is_refused_where_it_is_no_spelling(joiner: str) -> None:
    for text in (
        f"Ac{joiner}me",
        f"\u0430{joiner}\u0431",  # Cyrillic
        f"1{joiner}2",
        f"\N{MAN}{joiner}\N{PERSONAL COMPUTER}",
        f"\u0645{joiner}",
        f"{joiner}\u0645",
        joiner,
        f"\u0645{joiner}a",
        f"\u0645{joiner}\u0915",  # of two scripts
        f"\u0645{joiner}{joiner}\u0645",
        f"\u0645{joiner} \u0645",
    ):
        assert f"U+{ord(joiner):04X}" in complaint(text)


def test_a_variation_selector_is_refused_where_there_is_no_variant() -> None:
    for text in ("Acme\ufe0f", "\ufe0fAcme", "A\U000e0101", "1\ufe0f", "\u2764\ufe0f\ufe0f"):
        assert "invisible" in complaint(text), ascii(text)


@pytest.mark.parametrize("text", ["\ud800", "Acme\udce9"], ids=ascii)
def test_what_is_no_text_is_refused(text: str) -> None:
    assert complaint(text) == "is not valid UTF-8"


@given(TEXTS, TEXTS)
def test_no_text_is_changed_or_quoted(text: str, other: str) -> None:
    for char in "\n\u200b\ufeff":
        assert "CANARY" not in complaint(f"CANARY{text}{char}{other}")
    if is_name(text):
        assert checked(text) == text
    else:
        assert (complaint(text) if text else "").isascii()


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1))
def test_names_of_letters_marks_numbers_and_symbols_are_taken(text: str) -> None:
    plain = "".join(char for char in text if unicodedata.name(char, "").find("FILLER") < 0)
    marks = ("\u034f", "\u17b4", "\u17b5", "\u115f", "\u1160", "\u2800")
    if not any(char in marks or "VARIATION SELECTOR" in unicodedata.name(char, "") for char in plain):
        assert checked(plain) == plain


def test_the_composed_form_is_told_from_the_decomposed() -> None:
    assert is_composed("\u00e9")
    assert not is_composed("e\u0301")
    assert is_composed("Acme")
