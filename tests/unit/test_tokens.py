"""Secrets that don't show themselves, and JWTs that are read without being verified."""

import base64
import copy
import json
import logging
import math
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fakes import jwt
from support.texts import ANY_TEXT, ASCII, CHARACTERS, TEXTS

from vault_plugin.errors import TokenError
from vault_plugin.timing.clock import MAX_DATE
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.secret import Secret

UNREADABLE = "The access token is not a JWT with a valid `exp`."
ANOTHER_KIND = "The access token's `token_type` names another kind of token."

# Both tokens that the endpoint's own documentation shows, letter for letter: its examples are broken.
DOCUMENTED_ACCESS = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNjU2NTc2MDM4LCJpYTY1NzU5MTgs"
    "Imp0aSI6IjQwMWZlYmJhODg4NDQ1MmRhN2Q3ZTA5ZjEwZmYwOWFkIiwidXNlcl9pZCI6MjZ9."
    "sjU6iVbRRp7dTDt-l4rj7K7tKpPpaL7yskjstAUn2Zs"
)
DOCUMENTED_REFRESH = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTY1NjU3NjA5OCwiaWF0IjoxNjU2"
    "NTcdGkiOiI1ZmEzNGM4YjUyOGI0OWM3OWQzNjk5ZWJlNDRlYzUwZiIsInVzZXJfaWQiOjI2fQ."
    "kvpMWPuxenw2c55nucfQCxHLipiO4DhK2TC5NKpJZEk"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DATES = st.integers(0, MAX_DATE) | st.floats(0, MAX_DATE) | JSON
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "token_type": st.sampled_from(["access", "refresh"]) | JSON,
        "exp": DATES,
        "iat": DATES,
        "jti": JSON,
        "user_id": JSON,
        "other": JSON,
    },
)
INSTANTS = st.integers(0, 2**42).map(lambda n: n / 1024)  # exact as floats, and so are sums of them


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def signed(payload: object, header: object = None) -> str:
    """A JWT around any payload: bytes as they are, all else as JSON."""
    parts = (header or {"typ": "JWT", "alg": "HS256"}, payload)
    return ".".join(
        [*(segment(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts), "c2ln"]
    )


def refusal(raw: object, kind: Kind = Kind.ACCESS) -> str:
    with pytest.raises(TokenError) as caught:
        Token.from_jwt(raw, kind)
    return str(caught.value)


def dated(expires_at: int, issued_at: int | None = None) -> Token:
    return Token(Kind.ACCESS, Secret("x"), expires_at, issued_at, "", "")


def shown(secret: Secret) -> list[str]:
    """Everything that may come to light without anybody asking for the value."""
    token = Token(Kind.ACCESS, secret, 2, 1, "", "")
    attempts: list[Callable[[], object]] = [
        *(lambda protocol=protocol: pickle.dumps(secret, protocol) for protocol in range(6)),
        lambda: pickle.dumps(token),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
        lambda: copy.deepcopy(token),
        lambda: json.dumps(token),
        lambda: json.dumps(secret),
        lambda: format(secret, "200"),
        lambda: vars(secret),
        lambda: bytes(secret),  # type: ignore[call-overload]
        lambda: iter(secret),  # type: ignore[call-overload]
        lambda: [] < secret,  # type: ignore[operator]
    ]
    return [
        repr(secret),
        str(secret),
        ascii(secret),
        format(secret),
        f"{secret} {secret!s} {secret!r:>40}",
        repr([secret, (secret, {"key": secret})]),
        repr(token),
        str(token),
        repr(TokenSet(token, token, "")),
        logging.LogRecord("", 0, "", 0, "%s %r", (secret, token), None).getMessage(),
        "".join(traceback.format_exception(ValueError(secret, token))),
        *map(failure, attempts),
    ]


def failure(attempt: Callable[[], object]) -> str:
    with pytest.raises(TypeError) as caught:
        attempt()
    return "".join(traceback.format_exception(caught.value))


@given(ANY_TEXT, ANY_TEXT)
@example("", "*")
def test_what_is_shown_does_not_depend_on_the_secret(one: str, other: str) -> None:
    assert shown(Secret(one)) == shown(Secret(other))


@given(ANY_TEXT)
def test_reveal_gives_back_what_was_put_in(value: str) -> None:
    assert Secret(value).reveal() == value


def test_secrets_are_compared_by_value_and_with_nothing_but_secrets() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_token_knows_what_its_jwt_says() -> None:
    raw = signed({"token_type": "refresh", "exp": 900, "iat": 100, "jti": "j-1", "user_id": 26})
    token = Token.from_jwt(raw, Kind.REFRESH)
    assert token == Token(Kind.REFRESH, Secret(raw), 900, 100, "j-1", "26")


def test_fractions_of_dates_are_dropped_so_that_no_life_is_overstated() -> None:
    token = Token.from_jwt(signed({"token_type": "access", "exp": 900.999, "iat": 100.999}), Kind.ACCESS)
    assert (token.expires_at, token.issued_at) == (900, 100)


def test_iat_jti_and_user_id_may_be_missing() -> None:
    token = Token.from_jwt(signed({"token_type": "access", "exp": 900}), Kind.ACCESS)
    assert (token.issued_at, token.jti, token.user_id) == (None, "", None)


@pytest.mark.parametrize("odd", [None, 1.5, [], {"a": 1}], ids=repr)
def test_a_jti_that_is_no_text_counts_as_missing(odd: object) -> None:
    token = Token.from_jwt(signed({"token_type": "access", "exp": 900, "jti": odd}), Kind.ACCESS)
    assert token.jti == ""


def naming(claim: object) -> Token:
    return Token.from_jwt(signed({"token_type": "access", "exp": 900, "user_id": claim}), Kind.ACCESS)


def test_a_token_names_whoever_was_asked_for() -> None:
    for claim, user_id in (
        (26, "26"), (7, "007"), ("7", "007"), ("007", "7"), (7.0, "7"), (0, "000"), (-7, "-07"), (0, "-0"),
        (10**18, "1000000000000000000"), ("a@x.com", "a@x.com"), ("1.50", "1.50"), (1.5, "1.5"), ("true", "true"),
        (None, "26"), (None, "anybody"), ("9" * 5000, "0" + "9" * 5000),
    ):  # fmt: skip
        assert naming(claim).names(user_id), (claim, user_id)


def test_a_token_of_anybody_else_does_not() -> None:
    for claim, user_id in (
        (27, "26"), (7, "70"), (-7, "7"), ("26 ", "26"), ("26\n", "26"), ("+26", "26"), ("\u0667", "7"), ("A@x.com", "a@x.com"),
        ("e\u0301", "\u00e9"), (1.5, "1"), (1.5, "1.50"), (2.0**53, "9007199254740992"), ("", "26"), (True, "True"),
        (True, "true"), (True, "1"), (False, "0"), ([], "[]"), ([26], "26"), ({}, "{}"), ({"id": 26}, "26"),
    ):  # fmt: skip
        assert not naming(claim).names(user_id), (claim, user_id)


@given(st.integers(), st.integers(0, 9))
def test_whole_numbers_are_the_same_user_if_and_only_if_they_are_the_same_number(
    one: int, zeros: int
) -> None:
    spelled = f"{'-' if one < 0 else ''}{'0' * zeros}{abs(one)}"
    assert naming(one).names(spelled)
    assert not naming(one + 1).names(spelled)


@given(JSON, st.text(CHARACTERS, min_size=1))
def test_no_claim_crashes_the_comparison(claim: Any, user_id: str) -> None:
    assert naming(claim).names(user_id) in {True, False}


def test_a_long_number_that_is_none_is_told_in_no_time() -> None:
    assert not naming("0" * 40_000 + "x").names("0" * 40_000)  # an hour, if each split of it was tried


@pytest.mark.parametrize(
    ("issued_by", "endpoint", "is_of"),
    [("https://a", "https://a", True), ("https://a", "https://b", False), ("", "https://b", True), ("https://a", "", True)],
)  # fmt: skip
def test_a_token_is_of_its_issuer_and_of_any_endpoint_where_that_is_not_known(
    issued_by: str, endpoint: str, is_of: bool
) -> None:
    assert dated(900)._replace(issued_by=issued_by).is_of(endpoint) == is_of


@pytest.mark.parametrize(("issued_at", "ahead"), [(None, False), (100, False), (160, False), (161, True)])
def test_a_token_is_ahead_if_it_was_issued_later_than_clocks_may_differ(
    issued_at: int | None, ahead: bool
) -> None:
    assert dated(10**6, issued_at).is_ahead(100) == ahead


NO_DATES = [
    True,
    False,
    "900",
    "",
    None,
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -0.5,
    MAX_DATE + 1,
    1e300,
    [],
    {},
]


def test_what_is_no_date_is_refused() -> None:
    for claim in ("exp", "iat"):
        for value in NO_DATES:
            claims = {"token_type": "access", "exp": 900, "iat": 100, claim: value}
            assert refusal(signed(claims)) == UNREADABLE, (claim, value)


def test_the_first_and_the_last_second_are_dates() -> None:
    for date in (0, MAX_DATE):
        assert Token.from_jwt(signed({"token_type": "access", "exp": date}), Kind.ACCESS).expires_at == date


def test_what_is_no_dated_jwt_is_refused_with_always_the_same_words() -> None:
    refused: dict[str, object] = {
        "no exp": signed({"token_type": "access", "iat": 100}),
        "infinite by overflow": signed(b'{"token_type": "access", "exp": 1e999}'),
        "401 digits": signed(b'{"token_type": "access", "exp": 1' + b"0" * 400 + b"}"),
        "5000 digits": signed(b'{"token_type": "access", "exp": ' + b"9" * 5000 + b"}"),
        "deep nesting": signed(b"[" * 100_000),
        "deep nesting in both parts": signed(b'{"a":' * 100_000, b"[" * 100_000),
        "no UTF-8": signed(b"\xff\xfe\xfd"),
        "empty payload": signed(b""),
        "payload is a list": signed([900]),
        "payload is a string": signed("exp"),
        "header is no JSON": signed({"token_type": "access", "exp": 900}, b"HS256"),
        "header is a list": signed({"token_type": "access", "exp": 900}, ["HS256"]),
        "newline at the end": signed({"token_type": "access", "exp": 900}) + "\n",
        "space in front": " " + signed({"token_type": "access", "exp": 900}),
        "two parts": signed({"token_type": "access", "exp": 900}).rpartition(".")[0],
        "four parts": signed({"token_type": "access", "exp": 900}) + ".x",
        "padding": signed({"token_type": "access", "exp": 900}) + "==",
        "empty signature": signed({"token_type": "access", "exp": 900})[:-4],
        "no base64": "a.b.c",
        "dots": "..",
        "empty": "",
        "surrogates": "\ud800.\udfff.\ud800",
        "surrogate at the end": f"{jwt()}\ud800",
        "bytes": jwt().encode(),
        "None": None,
        "number": 900,
        "list": ["a.b.c"],
        "the documentation's access token": DOCUMENTED_ACCESS,
    }
    for what, raw in refused.items():
        assert refusal(raw) == UNREADABLE, what


def test_the_two_corrupted_tokens_of_the_documentation_are_refused() -> None:
    for kind in Kind:
        for raw in (DOCUMENTED_ACCESS, DOCUMENTED_REFRESH):
            assert refusal(raw, kind) == f"The {kind} token is not a JWT with a valid `exp`."


def test_a_token_of_another_kind_is_refused() -> None:
    kinds: list[object] = ["refresh", "", "ACCESS", "access ", None, True, 1, ["access"], {}]
    for said in kinds:
        assert refusal(signed({"token_type": said, "exp": 900})) == ANOTHER_KIND, said


def test_a_token_that_does_not_tell_its_kind_is_refused() -> None:
    assert refusal(signed({"exp": 900})) == ANOTHER_KIND


@given(
    ANY_TEXT
    | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", fullmatch=True, alphabet=ASCII)
)
def test_no_text_crashes_the_reader_or_changes_what_it_says(text: str) -> None:
    # Some of these are JSON objects by chance, so that they only miss their `token_type`; none has an `exp`.
    assert refusal(text) in {UNREADABLE, ANOTHER_KIND}


@given(JSON, JSON)
def test_no_json_crashes_the_reader_or_changes_what_it_says(header: Any, payload: Any) -> None:
    assert refusal(signed(payload, header)) in {UNREADABLE, ANOTHER_KIND}


def is_date(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_DATE + 1


@given(CLAIMS)
def test_a_jwt_is_read_if_and_only_if_its_kind_and_dates_are_sound(claims: dict[str, Any]) -> None:
    sound = claims.get("token_type") == "access" and is_date(claims.get("exp"))
    raw = signed(claims)
    if not (sound and is_date(claims.get("iat", 0))):
        assert refusal(raw) == (UNREADABLE if claims.get("token_type") == "access" else ANOTHER_KIND)
        return
    token = Token.from_jwt(raw, Kind.ACCESS)
    assert token.value.reveal() == raw
    assert token.expires_at <= claims["exp"] < token.expires_at + 1
    assert (token.issued_at is None) == ("iat" not in claims)


@pytest.mark.parametrize(
    "raw",
    [
        "CANARY",
        "CANARY.CANARY.CANARY",
        signed(b"CANARY"),
        signed(b'{"exp": CANARY}'),
        signed({"token_type": "access", "exp": "CANARY"}),
        signed({"token_type": "CANARY", "exp": 900}),
        signed({"token_type": "access", "CANARY": 900}),
    ],
)
def test_no_traceback_of_a_refused_token_quotes_it(raw: str) -> None:
    with pytest.raises(TokenError) as caught:
        Token.from_jwt(raw, Kind.ACCESS)
    text = "".join(traceback.format_exception(caught.value))
    # The cause, JSONDecodeError, holds the whole text as its `doc`: nobody shall find it by chance.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "CANARY" not in text
    assert not any(part in text for part in raw.split(".") if len(part) > 4)


@given(st.integers(0, MAX_DATE), INSTANTS)
def test_ttl_is_never_negative_and_never_past_the_end(expires_at: int, now: float) -> None:
    ttl = dated(expires_at).ttl(now)
    assert ttl >= 0
    assert ttl == 0 or now + ttl <= expires_at < now + ttl + 1


def test_a_token_in_its_last_second_has_no_whole_second_left() -> None:
    assert [dated(100).ttl(now) for now in (98.0, 99.0, 99.001, 100.0, 500.0)] == [2, 1, 0, 0, 0]


@given(st.integers(0, MAX_DATE), st.integers(0, MAX_DATE), st.floats(0, 1e6))
def test_the_margin_is_min_ttl_but_at_most_half_of_the_life(issued: int, life: int, min_ttl: float) -> None:
    margin = dated(issued + life, issued).margin(min_ttl)
    assert margin == min(min_ttl, life / 2)


def test_the_margin_is_min_ttl_where_the_life_is_unknown() -> None:
    assert dated(900).margin(60) == 60


@given(*[st.tuples(st.integers(0, 5), st.none() | st.integers(0, 3))] * 3)
def test_newer_than_is_a_strict_order(
    one: tuple[int, int | None], two: tuple[int, int | None], three: tuple[int, int | None]
) -> None:
    a, b, c = dated(*one), dated(*two), dated(*three)
    assert not a.newer_than(a)
    assert not (a.newer_than(b) and b.newer_than(a))
    if a.newer_than(b):
        assert a.newer_than(c) or c.newer_than(
            b
        )  # so it is transitive, and "neither is newer" is an equivalence


def test_newer_is_who_was_issued_later_then_who_lives_longer() -> None:
    assert dated(900, 200).newer_than(dated(5000, 100))
    assert dated(901, 200).newer_than(dated(900, 200))
    assert dated(900, 1).newer_than(dated(900, None))


def test_neither_a_token_nor_a_pair_can_be_changed() -> None:
    token = dated(1)
    for one, name in ((token, "expires_at"), (TokenSet(token, token, ""), "access")):
        with pytest.raises(AttributeError):
            setattr(one, name, 2)


def test_a_pair_lists_both_its_tokens() -> None:
    access, refresh = dated(1), dated(2)
    assert TokenSet(access, refresh, "7.8.9").tokens == (access, refresh)
