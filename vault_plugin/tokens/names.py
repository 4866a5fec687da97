"""Which characters a name may have: two names that look the same must not be two identities."""

import re
import unicodedata

# Control characters, line and paragraph separators, and Unicode's Default_Ignorable_Code_Point: white space of no width,
# direction marks, the byte order mark, fillers, tags. Joiners and variation selectors depend on their neighbors.
# It is compiled at the first use, since that takes longer than all other checks of names together.
_CONTROL_OR_INVISIBLE = (
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BLANK = "\u2800"  # Braille's, which no property of Unicode calls white space
_JOINERS = "\u200c\u200d"
_SELECTOR = "[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
# The scripts that are written with joiners (UAX #31), by the first word of their characters' names.
_JOINED = frozenset(
    {
        "ADLAM",
        "ARABIC",
        "BALINESE",
        "BENGALI",
        "CHAKMA",
        "DEVANAGARI",
        "GUJARATI",
        "GURMUKHI",
        "JAVANESE",
        "KANNADA",
        "KHMER",
        "LIMBU",
        "MALAYALAM",
        "MANDAIC",
        "MEETEI",
        "MONGOLIAN",
        "MYANMAR",
        "NEWA",
        "NKO",
        "ORIYA",
        "PHAGS-PA",
        "SINHALA",
        "SUNDANESE",
        "SYLOTI",
        "SYRIAC",
        "TAMIL",
        "TELUGU",
        "TIBETAN",
    }
)
# The scripts that are written with variation selectors.
_VARIED = frozenset({"CJK", "MONGOLIAN", "MYANMAR", "PHAGS-PA"})


def checked(text: str) -> str:
    """The same text. Raises ValueError, which does not quote it, if it has invisible characters."""
    if text.isascii() and text.isprintable() and text == text.strip():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    for found in re.finditer(_CONTROL_OR_INVISIBLE, text):
        if not _is_spelling(text, found.start()):
            raise ValueError(
                f"has the control or invisible character U+{ord(found[0]):04X} at position {found.start() + 1}"
            )
    if text and any(char.isspace() or char == _BLANK for char in (text[0], text[-1])):
        raise ValueError("begins or ends with white space")
    return text


def is_composed(text: str) -> bool:
    """Whether it is in Unicode's normalization form C, as keyboards produce it. Other forms look the same."""
    return unicodedata.is_normalized("NFC", text)


def _is_spelling(text: str, at: int) -> bool:
    """Whether the invisible character there changes the shape of its neighbors."""
    before, char, after = text[at - 1 : at], text[at], text[at + 1 : at + 2]
    if char in _JOINERS:
        return _is_letter(before) and _is_letter(after) and _script(before) == _script(after) in _JOINED
    if re.match(_SELECTOR, char):
        return bool(before) and (unicodedata.category(before) == "So" or _script(before) in _VARIED)
    return False


def _is_letter(char: str) -> bool:
    """Whether it is a letter or a mark. An empty text is not."""
    return bool(char) and unicodedata.category(char)[0] in "LM"


def _script(char: str) -> str:
    return unicodedata.name(char, "").split(" ")[0]
