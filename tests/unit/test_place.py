"""Places: what a listing of Vault returns, and whose path that is."""

from hypothesis import given
from support.fakes import is_name
from support.texts import NAMES

from vault_plugin.tokens.identity import Identity, encode
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Place, decode, is_segment

LONG = "ü" * 200


@given(NAMES.filter(is_name), NAMES.filter(is_name))
def test_a_place_is_the_path_of_its_identity_and_leads_back_to_it(user: str, company: str) -> None:
    identity = Identity(user, company)
    place = Place.of(identity)
    for kind in Kind:
        assert place.path("a/b", kind) == identity.path("a/b", kind)
    assert is_segment(place.company)
    assert is_segment(place.user)
    hashed = "~~" in place.company + place.user
    assert place.identity == (None if hashed else identity)


def test_what_encode_never_makes_is_no_segment() -> None:
    texts = ["~41cme", "a/b", "a b", "ü", "~C3", "~", "", "..", "a..b", "~zz", "a~", "~c3~bc", ".a", "A~~123"]
    for text in texts:
        assert decode(text) is None, text
        assert not is_segment(text), text


def test_a_hashed_name_is_a_segment_that_names_nobody() -> None:
    segment = encode(LONG)
    assert (decode(segment), is_segment(segment)) == (None, True)
    assert Place(segment, "26").identity is None
    assert Place("Acme", segment).identity is None


def test_a_name_that_no_identity_may_have_names_nobody() -> None:
    assert is_segment("a~00b")
    assert Place("a~00b", "26").identity is None
