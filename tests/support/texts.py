"""Texts and names for hypothesis."""

from hypothesis import strategies as st

from support.fakes import is_name

# st.text() without characters takes the same ones, by asking a codec about each that there is: that takes seconds in
# each process, where no cache of an earlier run is.
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS)
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
ASCII = st.characters(max_codepoint=127)
NAMES = st.text(CHARACTERS, min_size=1).filter(is_name)
