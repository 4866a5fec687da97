"""The record of a token in Vault, and which secrets count as managed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import ACME, NOW, jwt
from support.texts import NAMES, TEXTS

from vault_plugin.errors import ForeignSecretError
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.vault.record import (
    MANAGED_BY,
    custom_metadata,
    from_data,
    is_managed,
    issuer_in,
    to_data,
    without_token,
)

DATES = st.integers(0, 4_102_444_800)


def read(kind: Kind = Kind.ACCESS, **claims: Any) -> Token:
    return Token.from_jwt(jwt(kind, **claims), kind)


def test_what_is_written_is_text_under_the_documented_names() -> None:
    assert to_data(read(), ACME, "7.8.9") == {
        "access_token": jwt(),
        "token_type": "Bearer",
        "expires_at": "2026-09-21T14:28:20Z",
        "issued_at": "2026-09-21T14:13:20Z",
        "jti": "j",
        "user_id": "26",
        "company_name": "Acme",
        "release_version": "7.8.9",
        "issued_by": "",
    }


def test_a_refresh_token_is_written_under_its_own_name() -> None:
    data = to_data(read(Kind.REFRESH), ACME, "")
    assert data["refresh_token"] == jwt("refresh")
    assert "access_token" not in data


def test_an_unknown_date_of_issue_is_written_as_no_text() -> None:
    assert to_data(read(iat=None), ACME, "")["issued_at"] == ""


@given(NAMES, NAMES, st.sampled_from(Kind), DATES, st.none() | DATES, TEXTS, TEXTS)
def test_what_was_written_is_read_back(
    user: str,
    company: str,
    kind: Kind,
    expires_at: int,
    issued_at: int | None,
    jti: str,
    issued_by: str,
) -> None:
    identity = Identity(user, company)
    token = read(kind, exp=expires_at, iat=issued_at, jti=jti, user_id=user)._replace(issued_by=issued_by)
    data = to_data(token, identity, "1")
    assert all(type(value) is str for value in data.values())
    assert from_data(data, identity, kind) == token


def test_a_date_of_issue_that_only_the_record_knows_is_taken_from_there() -> None:
    data = to_data(read(iat=None), ACME, "") | {"issued_at": "2026-09-21T14:13:20Z"}
    token = from_data(data, ACME, Kind.ACCESS)
    assert token is not None
    assert token.issued_at == NOW


def test_the_jwts_own_date_of_issue_ranks_above_the_records() -> None:
    data = to_data(read(), ACME, "") | {"issued_at": "2000-01-01T00:00:00Z"}
    assert from_data(data, ACME, Kind.ACCESS) == read()


def test_a_record_without_a_readable_date_of_issue_leaves_it_unknown() -> None:
    dates: list[object] = ["", "yesterday", "2026-09-21", None, 17, []]
    for said in dates:
        data: dict[str, Any] = to_data(read(iat=None), ACME, "") | {"issued_at": said}
        assert from_data(data, ACME, Kind.ACCESS) == read(iat=None), said


def test_the_end_is_what_the_jwt_says_and_not_what_the_record_says() -> None:
    data = to_data(read(), ACME, "") | {"expires_at": "2999-01-01T00:00:00Z"}
    token = from_data(data, ACME, Kind.ACCESS)
    assert token is not None
    assert token.expires_at == NOW + 900


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "27"},
        {"user_id": 26},
        {"user_id": None},
        {"company_name": "acme"},
        {"company_name": ""},
        {"user_id": "Acme", "company_name": "26"},
    ],
    ids=repr,
)
def test_a_secret_of_another_identity_is_foreign(change: dict[str, object]) -> None:
    with pytest.raises(ForeignSecretError):
        from_data(to_data(read(), ACME, "") | change, ACME, Kind.ACCESS)


@pytest.mark.parametrize("missing", ["access_token", "user_id", "company_name"])
def test_a_secret_without_what_we_write_is_foreign(missing: str) -> None:
    data = to_data(read(), ACME, "")
    del data[missing]
    with pytest.raises(ForeignSecretError):
        from_data(data, ACME, Kind.ACCESS)


def test_an_empty_secret_is_foreign() -> None:
    with pytest.raises(ForeignSecretError):
        from_data({}, ACME, Kind.ACCESS)


def test_the_other_kinds_secret_is_foreign() -> None:
    with pytest.raises(ForeignSecretError):
        from_data(to_data(read(Kind.REFRESH), ACME, ""), ACME, Kind.ACCESS)


def test_our_secret_with_a_token_that_cannot_be_read_counts_as_none() -> None:
    tokens: list[object] = ["", "CANARY", jwt("refresh"), jwt(exp="soon"), None, 17, {}, ["x"]]
    for raw in tokens:
        data: dict[str, Any] = to_data(read(), ACME, "") | {"access_token": raw}
        assert from_data(data, ACME, Kind.ACCESS) is None, raw


def test_a_foreign_secret_is_not_quoted() -> None:
    with pytest.raises(ForeignSecretError) as caught:
        from_data({"user_id": "CANARY", "access_token": "CANARY", "CANARY": "x"}, ACME, Kind.ACCESS)
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"


def test_a_stored_token_that_names_another_user_counts_as_none_unless_that_is_accepted() -> None:
    for claim in (27, "27", "26 ", "", True, [26], {"id": 26}):
        data = to_data(read(user_id=claim), ACME, "")
        assert from_data(data, ACME, Kind.ACCESS) is None, claim
        assert from_data(data, ACME, Kind.ACCESS, accept_other_users=True) == read(user_id=claim), claim


@pytest.mark.parametrize("said", ["", None], ids=repr)
def test_what_was_stored_without_its_issuer_is_of_any_endpoint(said: str | None) -> None:
    data: dict[str, Any] = to_data(read(), ACME, "") | {"issued_by": said}
    token = from_data(data, ACME, Kind.ACCESS)
    assert token is not None
    assert token.is_of("https://api.example")
    del data["issued_by"]  # as version 0.1.0 wrote it
    assert from_data(data, ACME, Kind.ACCESS) == token


def test_what_a_secret_says_of_its_issuer_counts_whatever_it_is() -> None:
    data: dict[str, Any] = to_data(read(), ACME, "") | {"issued_by": 5}
    token = from_data(data, ACME, Kind.ACCESS)
    assert token is not None
    assert not token.is_of("https://api.example")


def test_the_path_is_marked_with_the_issuer_within_what_vault_takes() -> None:
    def mark(url: str) -> dict[str, str]:
        return custom_metadata(read()._replace(issued_by=url))

    assert mark("") == MANAGED_BY
    assert mark("https://api.example") == MANAGED_BY | {"issued-by": "https://api.example"}
    long = "https://api.example/" + "x" * 492
    assert mark(long)["issued-by"] == long
    cut = [mark(long + end)["issued-by"] for end in ("a", "b")]
    assert {len(text) for text in cut} == {512}
    assert cut[0] != cut[1]
    assert [issuer_in({"custom_metadata": one}) for one in (mark(long), MANAGED_BY, None)] == [
        long,
        "",
        "",
    ]


def test_further_keys_are_ignored() -> None:
    data = to_data(read(), ACME, "") | {"ttl": "900s"}  # as on KV v1
    assert from_data(data, ACME, Kind.ACCESS) == read()


def test_a_path_is_managed_by_its_mark_among_other_custom_metadata() -> None:
    assert is_managed({"custom_metadata": MANAGED_BY})
    assert is_managed({"custom_metadata": MANAGED_BY | {"team": "billing"}})


def test_a_path_without_our_mark_is_unmanaged() -> None:
    unmarked: list[dict[str, Any]] = [
        {},
        {"custom_metadata": None},
        {"custom_metadata": {}},
        {"custom_metadata": {"managed-by": "hand"}},
        {"custom_metadata": {"team": "billing", "x": "y"}},
    ]
    for metadata in unmarked:
        assert not is_managed(metadata), metadata


def test_our_mark_stays_what_stored_secrets_carry() -> None:
    assert MANAGED_BY == {"managed-by": "klearstack-vault"}


def test_data_without_its_token_is_managed_and_has_none() -> None:
    data = without_token(to_data(read(), ACME, ""), Kind.ACCESS)
    assert from_data(data, ACME, Kind.ACCESS) is None
    assert read().value.reveal() not in str(data)


@pytest.mark.parametrize(
    ("deletion", "overdue"),
    [
        (None, 0),
        ("", 0),
        ("2026-09-21T14:28:19.9Z", 0),
        ("2026-09-21T14:28:20.000002Z", 2e-6),  # there is no tolerance
        ("2026-09-21T14:28:30Z", 10),
    ],
)
def test_a_version_is_overdue_if_it_is_deleted_after_its_jwt_expires(
    deletion: str | None, overdue: float
) -> None:
    assert VaultRef("kv", "p", 1, deletion).overdue(read()) == pytest.approx(overdue, abs=1.5e-6)


def stored(created: int | None, **claims: Any) -> StoredToken:
    text = None if created is None else format_rfc3339(created)
    return StoredToken(read(**claims), VaultRef("kv", "p", 1, None, text))


def test_what_is_left_of_a_life_is_the_smaller_of_two() -> None:
    for one, now, vault_now, left in (
        (stored(NOW), NOW + 100, NOW + 100, 800),  # clocks in step
        (stored(NOW - 3600), NOW + 100, NOW - 3500, 800),  # the endpoint's clock is ahead, and responded
        (stored(NOW - 3600), NOW - 3500, NOW - 3500, 800),  # ... and was not
        (stored(NOW + 3600), NOW + 3700, NOW + 3700, -2800),  # it is behind
        (stored(NOW + 400), NOW + 500, NOW + 500, 400),  # issued again, or copied from another Vault
        (stored(NOW - 3600, iat=None), NOW, NOW, 900),  # no date of issue
        (stored(None), NOW + 100, NOW + 100, 800),  # KV v1 tells no date
        (stored(None), NOW - 3500, NOW - 3500, 4400),
    ):
        assert one.left(now, vault_now) == pytest.approx(left, abs=1e-3), one
