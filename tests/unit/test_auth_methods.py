"""What hvac is called with for a login that no server of the short tests has."""

from typing import Any, cast

from hvac.adapters import JSONAdapter

from vault_plugin.settings import Settings
from vault_plugin.settings.logins import LOGINS
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault.auth_methods import METHODS


class Adapter:
    """Takes down a login."""

    def login(self, url: str, use_token: bool, json: dict[str, Any]) -> tuple[str, bool, dict[str, Any]]:
        return url, use_token, json


def test_ldap_sends_the_password_in_the_body_and_quotes_the_user_name() -> None:
    settings = Settings(
        user_id="-",
        company_name="-",
        url="https://api.example",
        vault_addr=("https://vault.example",),
        auth="ldap",
        auth_username="DOM\\Jané Doe",
        vault_password=Secret("pâss"),
    )
    sent = METHODS["ldap"].send(cast(JSONAdapter, Adapter()), settings, "corp/ldap")
    assert sent == ("/v1/auth/corp/ldap/login/DOM%5CJan%C3%A9%20Doe", False, {"password": "pâss"})


def test_each_login_but_those_with_a_given_token_or_none_is_a_method() -> None:
    assert METHODS.keys() == LOGINS.keys() - {"token", "none"}
