"""Columns of a terminal: names of any script are cut and filled by what they take on the screen."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from vault_plugin.output.columns import cut, filled, width

SAMPLES = {
    "": 0,
    "Acme": 4,
    "Ähre": 4,
    unicodedata.normalize("NFD", "Ähre"): 4,
    "株式会社": 8,
    "ﾃｽﾄ": 3,
    "한국": 4,
    unicodedata.normalize("NFD", "한국"): 4,
    "🏢 Büro": 7,
    "❤\ufe0f": 2,
    "ไทย": 3,
    "क्ष": 2,
}


def test_a_text_takes_its_columns() -> None:
    for text, columns in SAMPLES.items():
        assert width(text) == columns, text
        assert filled(text, columns) == text, text
        assert filled(text, columns + 3) == f"{text}   ", text


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    for text, columns, shown in (
        ("Acme", 4, "Acme"),
        ("Acme Corp", 5, "Acme…"),
        ("株式会社", 7, "株式会…"),
        ("株式会社", 6, "株式…"),  # half of a character cannot be shown
        ("a\u0308bc", 2, "a\u0308…"),  # what is drawn on top of it stays with it
        ("Acme", 1, "…"),
    ):
        assert cut(text, columns) == shown, text
        assert width(filled(text, columns)) == columns, text


@given(st.text(), st.integers(1, 40))
def test_a_filled_text_takes_exactly_its_columns(text: str, columns: int) -> None:
    assert width(filled(text, columns)) == columns
