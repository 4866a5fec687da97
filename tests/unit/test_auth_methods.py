"""What hvac is called with for a login that no server of the short tests has."""

import os
from typing import Any, ClassVar, cast

from hvac.adapters import JSONAdapter

from vault_plugin.settings import Settings
from vault_plugin.settings.logins import LOGINS
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault.auth_methods import METHODS


class Adapter:
    """Takes down a login."""

    _kwargs: ClassVar = {"verify": True}

    def login(self, url: str, use_token: bool, json: dict[str, Any], **_: object) -> tuple[str, bool, Any]:
        return url, use_token, json


def settings_with(**given: Any) -> Settings:
    return Settings(
        user_id="-", company_name="-", url="https://api.example", vault_addr=("https://v.example",), **given
    )


def test_ldap_sends_the_password_in_the_body_and_quotes_the_user_name() -> None:
    settings = settings_with(auth_username="DOM\\Jané Doe", vault_password=Secret("pâss"))
    sent = METHODS["ldap"].send(cast(JSONAdapter, Adapter()), settings, "corp/ldap")
    assert sent == ("/v1/auth/corp/ldap/login/DOM%5CJan%C3%A9%20Doe", False, {"password": "pâss"})


def test_a_certificate_is_sent_with_the_name_of_its_role_if_there_is_one() -> None:
    for given, body in (({}, {}), ({"auth_role": "ci"}, {"name": "ci"})):
        settings = settings_with(vault_client_cert=os.devnull, **given)
        sent = METHODS["cert"].send(cast(JSONAdapter, Adapter()), settings, "cert")
        assert sent == ("/v1/auth/cert/login", False, body)


def test_each_login_but_those_with_a_given_token_or_none_is_a_method() -> None:
    assert METHODS.keys() == LOGINS.keys() - {"token", "none"}
