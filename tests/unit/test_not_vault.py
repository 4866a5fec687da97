"""Servers that are not Vault, by status, content type and form of the response."""

from email.message import Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_plugin.vault.not_vault import Redirect, advice, described, is_of_vault, place_of
from vault_plugin.wording import worded

HTML = b"<!doctype html><title>CANARY</title>"
NODE, PATH = "http://vault.example:8200", "/v1/secret/data/x"


def headers(**fields: str) -> Message:
    message = Message()
    for name, text in fields.items():
        message[name.replace("_", "-")] = text
    return message


def test_the_response_is_described_and_not_quoted() -> None:
    for status, content_type, body, what in (
        (200, "text/html; charset=utf-8", HTML, "an HTML page"),
        (403, "text/html", HTML, "an HTML page"),
        (404, "text/plain", HTML, "an HTML page"),  # by its first byte
        (401, "application/xhtml+xml", b"x", "an HTML page"),
        (407, "text/plain", b"Proxy authentication required", "neither JSON nor HTML"),
        (404, "application/json", b'{"message": "CANARY"}', "JSON, but not in Vault's form"),
        (404, "application/json", b"", "an empty response"),
    ):
        assert not is_of_vault(status, body), (status, body)
        said = described(status, headers(Content_Type=content_type), body)
        assert said == f"the server there is not Vault (status {status}, {what})", body


def test_a_login_that_the_server_requires_is_named() -> None:
    assert "a proxy that requires a login" in advice(407)
    assert "requires a login of its own" in advice(401)
    assert "login page" in advice(200) == advice(404)


@given(st.integers(200, 599), st.binary(max_size=200), st.text(max_size=40))
def test_any_response_can_be_described(status: int, body: bytes, location: str) -> None:
    is_of_vault(status, body)
    assert described(status, headers(), body).isascii()
    message: Any = Message()
    message._headers.append(("Location", location))  # as http.client takes it
    assert str(Redirect.of(status, message, NODE, PATH)).isprintable()


def test_only_a_307_to_the_same_path_elsewhere_is_a_standbys() -> None:
    for path in (PATH, f"{PATH}?list=true"):
        for status, location, standby in (
            (307, f"https://10.0.0.2:8200{PATH}", True),
            (307, f"https://u:p@10.0.0.2:8200{PATH}", True),
            (307, f"http://other.example/behind/a/proxy{PATH}?x=1", True),
            (307, "", True),  # as of a standby that knows no leader
            (307, "http://[", True),
            (302, f"https://10.0.0.2:8200{PATH}", False),
            (307, "https://sso.example/login", False),
            (307, "https://10.0.0.2:8200/ui/", False),
            (308, f"https://vault.example:8200{PATH}", False),
            (307, f"https://vault.example{PATH}", False),  # the same host over TLS
        ):
            redirect = Redirect.of(status, headers(Location=location), NODE, path)
            assert redirect.standby == standby, (path, status, location)


@pytest.mark.parametrize(
    ("node", "location", "hint"),
    [
        (NODE, "https://vault.example/v1/x", "Use https:// in --vault-addr (VAULT_ADDR or BAO_ADDR)."),
        ("https://vault.example", "http://vault.example/", "without TLS"),
        (NODE, "https://sso.example/", "login page"),
        ("unix:///run/vault.sock", "https://sso.example/", "login page"),
    ],
)
def test_a_redirect_to_the_other_scheme_of_the_same_host_is_named(
    node: str, location: str, hint: str
) -> None:
    redirect = Redirect.of(301, headers(Location=location), node, PATH)
    assert hint in worded(redirect.advice)
    assert f"{place_of(location)[0]}://{redirect.host}" in str(redirect)


def test_what_names_no_host_that_can_be_shown_has_no_place() -> None:
    for url in ("", "x", "http://[", "http://a b/", "ftp://x/", "http://h:99999/", "http://é/"):
        assert place_of(url) == ("", ""), url
