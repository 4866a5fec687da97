"""Which proxy is used for which server: the URL's forms, NO_PROXY by Go's rules, flags and variables."""

from typing import Any

import pytest
from support.no_proxy import EXCLUDED, SERVED

from vault_plugin.errors import SettingsError
from vault_plugin.settings import Settings
from vault_plugin.settings.proxies import Proxy

PROXY = Proxy("p", 3128)
GIVEN = {
    "KLEARSTACK_USER_ID": "26",
    "KLEARSTACK_COMPANY_NAME": "Acme",
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.token",
}


def test_no_proxy_excludes_what_go_excludes() -> None:
    for host, port, exceptions in EXCLUDED:
        assert not PROXY.excluding(exceptions).serves(host, port), (host, port, exceptions)
        assert PROXY.serves(host, port), (host, port)  # one that NO_PROXY does not hold for


def test_no_proxy_excludes_nothing_else() -> None:
    for host, port, exceptions in SERVED:
        assert PROXY.excluding(exceptions).serves(host, port), (host, port, exceptions)
        assert not Proxy().excluding(exceptions).serves(host, port), (host, port, exceptions)


def test_the_forms_of_a_proxy() -> None:
    for text, host, port, login, shown in (
        ("http://p:3128", "p", 3128, None, "http://p:3128"),
        ("p:3128", "p", 3128, None, "http://p:3128"),
        (" http://p/ ", "p", 80, None, "http://p:80"),
        ("http://[fd00::1]:3128", "fd00::1", 3128, None, "http://[fd00::1]:3128"),
        ("http://u:p%40s%3As@p", "p", 80, "u:p@s:s", "http://p:80"),
        ("http://u@p", "p", 80, "u:", "http://p:80"),
        ("None", "", 80, None, "none"),
    ):
        found = Proxy.read(text)
        assert (found.host, found.port, str(found)) == (host, port, shown), text
        assert (found.login.reveal() if found.login else None) == login, text
        assert "p@s" not in repr(found), text


UNKNOWN = [
    *(
        "socks5://u:CANARY@p",
        "https://u:CANARY@p",
        "http://u:CAN#ARY@p",
        "http://u:CAN/ARY@p",
        "http://:CANARY@",
    ),
    *(
        "http://p:0",
        "http://p:x",
        "http://p:CANARY?",
        "http://p\\CANARY",
        "http://a..CANARY",
        "p CANARY",
        "http://*.CANARY",
        "http://%CANARY%:3128",
    ),
]


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(GIVEN | environ)
    return str(caught.value)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "VAULT_PROXY_ADDR"])
def test_an_unknown_proxy_is_an_error_that_does_not_quote_it(variable: str) -> None:
    for text in UNKNOWN:
        told = refusal({variable: text})
        assert "must look like http://[user:password@]host[:port]" in told, text
        assert variable in told, text
        assert told.count("must look") == 1, text
        assert "CAN" not in told, text


def proxies(environ: dict[str, str], **flags: str) -> tuple[Any, Any]:
    settings = Settings.from_env(GIVEN | environ, **flags)
    return settings.proxy, settings.vault_proxy


def test_flags_rank_above_variables_and_no_proxy_holds_for_https_proxy_alone() -> None:
    general, own = Proxy("a", 1), Proxy("b", 2)
    environ = {"HTTPS_PROXY": "a:1", "https_proxy": "c:3", "NO_PROXY": "x", "no_proxy": "y"}
    assert proxies({}) == (None, None)
    assert proxies({"NO_PROXY": "x"}) == (None, None)
    assert proxies(environ) == (general.excluding("x"),) * 2
    assert proxies({"HTTPS_PROXY": "a:1"}) == (general.excluding(""),) * 2
    assert proxies(environ | {"VAULT_HTTP_PROXY": "b:2"}) == (general.excluding("x"), own)
    assert proxies(environ | {"BAO_HTTP_PROXY": "c:3", "VAULT_PROXY_ADDR": "b:2"})[1] == own
    assert proxies(environ, proxy="b:2") == (own, general.excluding("x"))
    assert proxies({}, proxy="b:2") == (own, None)
    assert proxies(environ, proxy="b:2", vault_proxy="b:2") == (own, own)
    assert proxies(environ, proxy="none", vault_proxy="none") == (Proxy(), Proxy())
    assert proxies(environ, proxy="", vault_proxy="") == (general.excluding("x"),) * 2


def test_a_flag_with_a_login_is_refused_and_a_wrong_variable_behind_a_flag_is_found() -> None:
    for name in ("proxy", "vault_proxy"):
        with pytest.raises(
            SettingsError, match="contains a login, which command lines and files show"
        ) as caught:
            Settings.from_env(GIVEN, **{name: "http://u:CANARY@p"})
        assert "CANARY" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"HTTPS_PROXY\) must look like"):
        Settings.from_env(GIVEN | {"HTTPS_PROXY": "ftp://x"}, proxy="none")
    assert proxies({"HTTPS_PROXY": "ftp://x"}, proxy="none", vault_proxy="none") == (Proxy(), Proxy())
