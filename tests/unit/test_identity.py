"""Whose tokens, and the one place in Vault that belongs to nobody else."""

import posixpath
import re
import unicodedata
from dataclasses import FrozenInstanceError
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.fakes import is_name
from support.texts import CHARACTERS

from vault_plugin.errors import SettingsError
from vault_plugin.tokens.identity import MAX_SEGMENT, Identity, encode
from vault_plugin.tokens.jwt import Kind

# Few characters that all mean something to paths, URLs, policies or the encoding itself: collisions come soon.
TRICKY = st.text("a./~+*%2FE{}@é\x00 ", min_size=1, max_size=8)
NAMES = TRICKY | st.text(CHARACTERS, min_size=1)
ACCEPTED = NAMES.filter(is_name)
LONG = st.builds(
    lambda char, count, end: char * count + end, st.sampled_from("aé.~/"), st.integers(50, 500), TRICKY
)

HOSTILE = [
    "../../../cubbyhole", "/", "//", "a/b", "%2F", "..%2f..", "+", "a+b", "*", "u*", " ", "a b", " a", "\N{GRINNING FACE}",
    "a\x00b", "\n", "\x7f", "\u200b", "a" * 500, "\N{GRINNING FACE}" * 500, "." * 500, "~" * 500, ".", "..", "...",
    ".a", "a.", "a..b", "~", "~~", "~2F", "{{x}}", "{{identity.entity.name}}", "\\", "?", "#", ":", "'\"$(id)`",
]  # fmt: skip


def decode(segment: str) -> str:
    """The text back: what shows that `encode` loses nothing, as long as it did not have to cut."""
    spelled = re.sub(rb"~([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), segment.encode())
    return spelled.decode()


@given(NAMES)
@example("~2F")
@example("~7E2F")
def test_an_encoded_name_can_be_decoded_unless_it_was_cut(name: str) -> None:
    segment = encode(name)
    assert "~~" in segment or decode(segment) == name


@given(NAMES | LONG, NAMES | LONG)
def test_two_names_never_share_a_segment(one: str, other: str) -> None:
    assume(one != other)
    assert encode(one) != encode(other)


@given(st.tuples(ACCEPTED, ACCEPTED), st.tuples(ACCEPTED, ACCEPTED))
def test_two_identities_never_share_a_path(one: tuple[str, str], other: tuple[str, str]) -> None:
    assume(one != other)
    paths = {Identity(*who).path("p", kind) for who in (one, other) for kind in Kind}
    assert len(paths) == 4


@given(st.text("ab/.~", min_size=3, max_size=12), st.data())
def test_the_border_between_company_and_user_cannot_be_moved(text: str, data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.integers(1, len(text) - 1), min_size=2, max_size=2, unique=True))
    paths = {Identity(text[cut:], text[:cut]).path("p", Kind.ACCESS) for cut in (one, other)}
    assert len(paths) == 2


def test_a_slash_in_a_name_is_no_border() -> None:
    assert Identity("c", "a/b").path("p", Kind.ACCESS) != Identity("b/c", "a").path("p", Kind.ACCESS)
    assert Identity("a", "a/access").path("p", Kind.ACCESS) != Identity("access/a", "a").path(
        "p", Kind.ACCESS
    )


def refusal(user: Any, company: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        Identity(user, company)
    return caught.value


def assert_stays_in_its_place(identity: Identity) -> None:
    path = identity.path("p", Kind.ACCESS)
    prefix, company, user, kind = path.split("/")
    assert (prefix, kind) == ("p", "access")
    for segment in (company, user):
        assert re.fullmatch(r"[A-Za-z0-9_@~.-]{1,160}", segment)
        assert segment not in {".", ".."}
    assert quote(path, safe="/@") == path  # whoever quotes it in between changes nothing
    assert posixpath.normpath(path) == path


def test_a_hostile_name_is_refused_or_stays_in_its_place() -> None:
    for name in HOSTILE:
        if not is_name(name):
            refusal(name, "Acme")
            continue
        assert_stays_in_its_place(Identity(name, name))
        assert_stays_in_its_place(Identity(name, "Acme"))
        assert_stays_in_its_place(Identity("26", name))


def test_no_two_hostile_names_share_a_segment() -> None:
    assert len({encode(name) for name in HOSTILE}) == len(HOSTILE)


@given(ACCEPTED | LONG.filter(is_name), ACCEPTED | LONG.filter(is_name))
def test_any_name_stays_in_its_place(user: str, company: str) -> None:
    assert_stays_in_its_place(Identity(user, company))


def test_names_stay_readable() -> None:
    for name, segment in (
        ("Acme", "Acme"),
        ("26", "26"),
        ("ann@acme.example", "ann@acme.example"),
        ("v1.2.3", "v1.2.3"),
        ("snake_case-and-dash", "snake_case-and-dash"),
        ("a+b@x.com", "a~2Bb@x.com"),
        ("\u00e9mile@x.com", "~C3~A9mile@x.com"),
        ("a/b", "a~2Fb"),
        ("../x", "~2E~2E~2Fx"),
        ("acme.", "acme~2E"),
        (".hidden", "~2Ehidden"),
        ("a..b", "a~2E~2Eb"),
        ("~", "~7E"),
        ("Acme Inc", "Acme~20Inc"),
        ("%2F", "~252F"),
    ):
        assert encode(name) == segment, name


def test_case_and_unicode_form_are_kept_apart() -> None:
    names = ["Acme", "acme", *(unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD"))]
    assert len({encode(name) for name in names}) == 4


def test_only_what_is_too_long_is_cut() -> None:
    fits, cut = encode("a" * MAX_SEGMENT), encode("a" * (MAX_SEGMENT + 1))
    assert fits == "a" * MAX_SEGMENT
    assert re.fullmatch(r"a{126}~~[0-9a-f]{32}", cut)
    assert encode(cut) != cut  # nobody is called like what a cut name becomes
    assert len(encode("\N{GRINNING FACE}" * 500)) <= MAX_SEGMENT


def test_long_names_that_differ_at_their_end_are_kept_apart() -> None:
    assert encode("a" * 500 + "x") != encode("a" * 500 + "y")


def test_the_path_names_company_user_and_kind() -> None:
    identity = Identity(user_id="26", company_name="Acme")
    assert identity.path("klearstack", Kind.ACCESS) == "klearstack/Acme/26/access"
    assert identity.path("team/ks", Kind.REFRESH) == "team/ks/Acme/26/refresh"


def test_what_is_no_name_is_refused_without_being_quoted() -> None:
    for user, company, complaint in (
        ("", "Acme", "The user_id is empty."),
        ("26", "", "The company_name is empty."),
        ("CANARY\ud800", "Acme", "The user_id is not valid UTF-8."),
        ("26", "\udfffCANARY", "The company_name is not valid UTF-8."),
        (26, "Acme", "The user_id is not a string."),
        (True, "Acme", "The user_id is not a string."),
        ("26", None, "The company_name is not a string."),
        ("26", b"CANARY", "The company_name is not a string."),
        (" CANARY", "Acme", "The user_id begins or ends with white space."),
        (
            "26",
            "CANARY\n",
            "The company_name has the control or invisible character U+000A at position 7.",
        ),
    ):
        error = refusal(user, company)
        assert str(error) == complaint, (user, company)
        assert error.__cause__ is None, complaint
        assert error.__suppress_context__ or error.__context__ is None, complaint


def test_an_identity_cannot_be_changed() -> None:
    identity = Identity("26", "Acme")
    with pytest.raises(FrozenInstanceError):
        identity.user_id = "27"  # type: ignore[misc]


@given(ACCEPTED, ACCEPTED)
def test_repr_hides_both_names(user: str, company: str) -> None:
    assert repr(Identity(user, company)) == repr(Identity("26", "Acme"))
