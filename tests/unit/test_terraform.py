"""What the program for Terraform takes as a query, and what it calls wrong with one."""

import io
import json
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import NOW, Done, Run, jwt, token
from support.texts import TEXTS

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import QueryError, SettingsError, UsageError
from vault_plugin.protocols.query import MAX_QUERY
from vault_plugin.protocols.terraform import OPTIONAL, REQUIRED, respond
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.origin import Group
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

GOOD = {"user_id": "26", "company_name": "Acme"}
ENOUGH = {
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.x",
}


def complaint(query: object) -> str:
    """What is said about a query; a good one is stopped by the empty environment."""
    text = query if isinstance(query, bytes) else json.dumps(query).encode()
    with pytest.raises((QueryError, SettingsError)) as caught:
        respond(text, {"HOME": "/nonexistent"})
    message = f"{caught.value} {caught.value.hint}"
    assert message.isascii()
    assert "\n" not in message
    return message if isinstance(caught.value, QueryError) else ""


def test_what_is_no_json_is_said_to_be_none() -> None:
    for query in (b"", b"{", b"\xff\xfe\xfa", b"nonsense", b"[" * 50_000):
        assert "not JSON" in complaint(query), query


def test_what_is_too_long_is_said_to_be() -> None:
    assert complaint(json.dumps(GOOD).encode().ljust(MAX_QUERY)) == ""
    assert "is longer than 64 KiB" in complaint(json.dumps(GOOD).encode().ljust(MAX_QUERY + 1))


def test_what_is_no_object_is_said_to_be_none() -> None:
    queries: list[object] = [None, [], "text", 5, True]
    for query in queries:
        assert "not a JSON object" in complaint(query), query


def test_a_value_that_is_no_string_is_named() -> None:
    values: list[object] = [5, True, None, {}, ["26"], 1.5]
    for name in (*REQUIRED, *OPTIONAL):
        for value in values:
            assert f"`{name}` is not a string" in complaint(GOOD | {name: value}), (name, value)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("query", [{}, {"user_id": "", "company_name": ""}])
def test_a_required_key_that_is_missing_or_empty_is_named(name: str, query: dict[str, str]) -> None:
    assert f"`{name}`" in complaint(query)


def test_a_name_with_what_nobody_sees_is_named_and_not_quoted() -> None:
    for name in REQUIRED:
        for value in ("Acme\n", "\ufeffAcme", " Acme", "Ac\u200bme", "A\u202ecme"):
            message = complaint(GOOD | {name: value})
            assert message.startswith(f"The query's `{name}` "), (name, value)
            assert "cme" not in message, (name, value)


def test_an_unknown_key_is_named_with_those_that_there_are() -> None:
    for name in ("usr_id", "vault_token", "VAULT_TOKEN", "password", "secret_id", "url"):
        message = complaint(GOOD | {name: "x"})
        assert f"`{name}`" in message, name
        assert "min_ttl" in message, name
        assert "environment" in message, name


def test_the_query_has_every_setting_with_a_flag_that_does_not_say_where_credentials_are_sent_to() -> None:
    elsewhere = {Group.IDENTITY, Group.ENDPOINT, Group.VAULT_CONNECTION}
    expected = {name for name, one in ORIGINS.items() if one.flag and one.group not in elsewhere}
    assert set(OPTIONAL) == expected | {"renew"}
    assert {"mount", "path_prefix", "min_ttl", "deadline", "auth", "auth_mount"} <= set(OPTIONAL)
    assert not any(ORIGINS[name].secret for name in expected)


@pytest.mark.parametrize("secret", ["hvs.CAESI" + "x" * 30, "s." + "A1b2" * 6, "hvb." + "x" * 90, jwt()])
def test_a_value_that_is_a_credential_is_refused_unquoted(secret: str) -> None:
    for name in (*REQUIRED, *OPTIONAL):
        message = complaint(GOOD | {name: f" {secret}\n"})
        assert secret[:12] not in message, name
        assert "credential" in message or "renew" in message, name


def test_a_key_that_is_a_credential_is_not_quoted() -> None:
    assert "hvs" not in complaint(GOOD | {"hvs." + "x" * 30: ""})


@pytest.mark.parametrize("user_id", ["s.somebody.with.a.very.long.name@example.com", "eyJust.a.name", "r.x"])
def test_an_id_that_only_begins_like_a_credential_is_taken(user_id: str) -> None:
    assert complaint(GOOD | {"user_id": user_id}) == ""


@pytest.mark.parametrize("value", ["yes", "1", "TRUE", "no"])
def test_renew_is_true_or_false(value: str) -> None:
    assert "`renew`" in complaint(GOOD | {"renew": value})


@pytest.mark.parametrize("value", ["", "true", "false"])
def test_renew_may_be_empty_true_or_false(value: str) -> None:
    assert complaint(GOOD | {"renew": value}) == ""


WRONG = {
    "min_ttl": ("soon", "is not a duration"),
    "deadline": ("0", "must be more than 0 seconds"),
    "mount": ("a//b", "may contain only letters"),
    "path_prefix": ("../x", "may contain only letters"),
    "auth": ("magic", "must be one of token, "),
    "auth_mount": ("../x", "may contain only letters"),
    "timeout": ("x", "is not a duration"),
    "on_user_mismatch": ("ignore", "must be one of fail, warn"),
}


def test_a_value_that_will_not_do_is_the_querys_by_its_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, said in [(name, *how) for name, how in WRONG.items()]:
        done = answered(GOOD | {name: value}, run, monkeypatch)
        assert (done.code, done.out) == (76, ""), name
        assert f"`{name}` in the query" in done.err, name
        assert said in done.err, name
        assert "See `klearstack-vault terraform --help`." in done.err, name
        assert value not in done.err.split() or value == "0", name
        assert " --" not in done.err.replace("`klearstack-vault terraform --help`", ""), name


@pytest.mark.parametrize("query", [GOOD, GOOD | {"min_ttl": ""}])
def test_what_the_environment_holds_is_no_fault_of_the_query(
    query: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLEARSTACK_MIN_TTL", "soon")
    done = answered(query, run, monkeypatch)
    assert (done.code, done.out) == (78, "")
    for said in ("KLEARSTACK_MIN_TTL", "KLEARSTACK_URL is missing", "VAULT_ADDR or BAO_ADDR is missing"):
        assert said in done.err
    assert "--" not in done.err.replace("`klearstack-vault terraform --help`", "")


def test_a_key_that_is_nearly_one_is_told_which() -> None:
    assert (
        "unknown key `usr_id`. Did you mean `user_id`? Valid keys: user_id, company_name, auth"
        in complaint(GOOD | {"usr_id": "26"})
    )
    assert "near" not in complaint(GOOD | {"password": "x"})


def answered(query: object, run: Run, monkeypatch: pytest.MonkeyPatch) -> Done:
    text = io.BytesIO(json.dumps(query).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(text))
    return run("terraform")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*REQUIRED, *OPTIONAL]) | TEXTS, JSON) | JSON)
def test_no_query_gives_anything_but_a_complaint_in_one_ascii_line(query: Any) -> None:
    complaint(query)


def test_the_minimum_lifetime_is_two_minutes_unless_a_value_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "5m").write_text("5m\n")
    (tmp_path / "empty").touch()
    seen: list[float] = []

    def connect(settings: Settings) -> NoReturn:
        seen.append(settings.min_ttl)
        raise UsageError("seen")

    monkeypatch.setattr("vault_plugin.protocols.terraform.connect", connect)
    variable, file = "KLEARSTACK_MIN_TTL", "KLEARSTACK_MIN_TTL_FILE"
    for environ, query, seconds in (
        ({}, {}, 120),
        ({variable: ""}, {}, 120),
        ({variable: "", file: ""}, {}, 120),
        ({file: f"{tmp_path}/empty"}, {}, 120),
        ({variable: "3m"}, {}, 180),
        ({file: f"{tmp_path}/5m"}, {}, 300),
        ({variable: "", file: f"{tmp_path}/5m"}, {}, 300),
        ({variable: "3m"}, {"min_ttl": ""}, 180),
        ({variable: "3m", file: f"{tmp_path}/5m"}, {"min_ttl": "0"}, 0),
    ):
        with pytest.raises(UsageError):
            respond(json.dumps(GOOD | query).encode(), ENOUGH | environ)
        assert seen.pop() == seconds, (environ, query)


class FakeBroker:
    """What `connect` gives; Vault's KV has this version."""

    def __init__(self, kv: int) -> None:
        self.kv = kv
        self.renewed: list[bool] = []

    @contextmanager
    def connect(self, settings: Settings) -> Iterator["FakeBroker"]:
        assert (settings.on_vault_error, settings.min_ttl) == ("fail", 120)
        yield self

    def get(self, identity: Identity, kinds: Collection[Kind], *, renew: bool) -> Grant:
        self.renewed.append(renew)
        version = 7 if self.kv == 2 else None
        held = {
            kind: GrantedToken(token(kind), VaultRef("kv", identity.path("p", kind), version))
            for kind in kinds
        }
        return Grant(held, "vault", stale=False, now=NOW)


@pytest.mark.parametrize(("kv", "version"), [(2, "7"), (1, "")])
@pytest.mark.parametrize("with_tokens", [False, True])
def test_the_answer_refers_to_both_tokens_and_holds_them_only_if_it_shall(
    kv: int, version: str, with_tokens: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = FakeBroker(kv)
    monkeypatch.setattr("vault_plugin.protocols.terraform.connect", broker.connect)
    for name, text in ENOUGH.items():
        monkeypatch.setenv(name, text)
    query = json.dumps(GOOD | {"renew": "true"}).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(query)))
    done = run("terraform", *(["--with-tokens"] if with_tokens else []))
    tokens = {"access_token": jwt(), "refresh_token": token(Kind.REFRESH).value.reveal()}
    assert (done.code, done.err, broker.renewed) == (0, "", [True])
    assert json.loads(done.out) == {
        "mount": "kv",
        "kv_version": str(kv),
        "access_name": "p/Acme/26/access",
        "access_version": version,
        "access_expires_at": "2026-09-21T14:28:20Z",
        "refresh_name": "p/Acme/26/refresh",
        "refresh_version": version,
        "refresh_expires_at": "2026-09-21T14:28:20Z",
    } | (tokens if with_tokens else {})
