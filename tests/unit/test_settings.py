"""Where each setting comes from, and that no secret is told when one is wrong."""

import os
import re
import time
import traceback
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_plugin.errors import SettingsError
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import default_company, known_deadline
from vault_plugin.settings.gathering import gather_deadline
from vault_plugin.settings.logins import SERVICE_ACCOUNT
from vault_plugin.settings.origin import Group
from vault_plugin.settings.proxies import Proxy
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.secret import Secret
from vault_plugin.wording import named, worded

ORIGINS = Settings.origins
ENOUGH = {
    "KLEARSTACK_USER_ID": "26",
    "KLEARSTACK_COMPANY_NAME": "Acme",
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example:8200",
    "VAULT_TOKEN": "hvs.token",
}
# What users, units and pipelines have written down: a change here is a breaking one.
PROMISED = {
    "user_id": ("KLEARSTACK_USER_ID",),
    "company_name": ("KLEARSTACK_COMPANY_NAME",),
    "url": ("KLEARSTACK_URL",),
    "ca_cert": ("KLEARSTACK_CACERT",),
    "proxy": ("HTTPS_PROXY", "https_proxy"),
    "no_proxy": ("NO_PROXY", "no_proxy"),
    "allow_plain_http": (),
    "vault_addr": ("BAO_ADDR", "VAULT_ADDR"),
    "vault_namespace": ("BAO_NAMESPACE", "VAULT_NAMESPACE"),
    "vault_cacert": ("BAO_CACERT", "VAULT_CACERT"),
    "vault_cacert_bytes": ("BAO_CACERT_BYTES", "VAULT_CACERT_BYTES"),
    "vault_capath": ("BAO_CAPATH", "VAULT_CAPATH"),
    "vault_tls_server_name": ("BAO_TLS_SERVER_NAME", "VAULT_TLS_SERVER_NAME"),
    "vault_client_cert": ("BAO_CLIENT_CERT", "VAULT_CLIENT_CERT"),
    "vault_client_key": ("BAO_CLIENT_KEY", "VAULT_CLIENT_KEY"),
    "auth": ("KLEARSTACK_VAULT_AUTH",),
    "auth_mount": ("KLEARSTACK_VAULT_AUTH_MOUNT",),
    "auth_namespace": ("KLEARSTACK_VAULT_AUTH_NAMESPACE",),
    "auth_role": ("KLEARSTACK_VAULT_AUTH_ROLE",),
    "auth_audience": ("KLEARSTACK_VAULT_AUTH_AUDIENCE",),
    "auth_username": ("KLEARSTACK_VAULT_AUTH_USERNAME",),
    "vault_token": ("BAO_TOKEN", "VAULT_TOKEN"),
    "vault_config_path": ("BAO_CONFIG_PATH", "VAULT_CONFIG_PATH"),
    "role_id": ("BAO_ROLE_ID", "VAULT_ROLE_ID"),
    "secret_id": ("BAO_SECRET_ID", "VAULT_SECRET_ID"),
    "wrapped_secret_id": ("BAO_WRAPPED_SECRET_ID", "VAULT_WRAPPED_SECRET_ID"),
    "vault_jwt": ("BAO_JWT", "VAULT_JWT"),
    "vault_password": ("BAO_PASSWORD", "VAULT_PASSWORD"),
    "actions_url": ("ACTIONS_ID_TOKEN_REQUEST_URL",),
    "actions_token": ("ACTIONS_ID_TOKEN_REQUEST_TOKEN",),
    "mount": ("KLEARSTACK_VAULT_MOUNT",),
    "kv_version": ("KLEARSTACK_VAULT_KV_VERSION",),
    "path_prefix": ("KLEARSTACK_VAULT_PATH_PREFIX",),
    "min_ttl": ("KLEARSTACK_MIN_TTL",),
    "timeout": ("KLEARSTACK_TIMEOUT",),
    "deadline": ("KLEARSTACK_DEADLINE",),
    "vault_proxy": ("BAO_PROXY_ADDR", "VAULT_PROXY_ADDR", "BAO_HTTP_PROXY", "VAULT_HTTP_PROXY"),
    "vault_timeout": ("BAO_CLIENT_TIMEOUT", "VAULT_CLIENT_TIMEOUT"),
    "vault_max_retries": ("BAO_MAX_RETRIES", "VAULT_MAX_RETRIES"),
    "vault_rate_limit": ("BAO_RATE_LIMIT", "VAULT_RATE_LIMIT"),
    "on_vault_error": ("KLEARSTACK_ON_VAULT_ERROR",),
    "on_user_mismatch": ("KLEARSTACK_ON_USER_MISMATCH",),
    "lock_dir": ("KLEARSTACK_LOCK_DIR",),
}
SECRETS = (
    "vault_token",
    "role_id",
    "secret_id",
    "wrapped_secret_id",
    "vault_jwt",
    "vault_password",
    "actions_token",
)
IN_HEADERS = tuple(name for name in SECRETS if name != "vault_password")
LOGINS = ("token", "none", "approle", "jwt", "kubernetes", "cert", "userpass", "ldap")
FILES = ("ca_cert", "vault_cacert", "vault_client_cert", "vault_client_key")
VARIABLES = [(name, variable) for name, origin in ORIGINS.items() for variable in origin.env]


# Texts that settings take, of which a number makes another one; `value1` for those that are not here.
SAMPLES = {
    **dict.fromkeys(("min_ttl", "timeout", "deadline"), "{}1s"),
    **dict.fromkeys(("vault_timeout", "vault_max_retries", "vault_rate_limit"), "{}"),
    **dict.fromkeys(("url", "vault_addr"), "https://host{}.example"),
    **dict.fromkeys(("proxy", "vault_proxy"), "http://proxy{}.example:3128"),
    **dict.fromkeys(FILES, os.devnull),
    "vault_cacert_bytes": "-----BEGIN CERTIFICATE-----{}",
    "actions_url": "https://host{}.example/?api-version=2",
}


def sample(name: str, number: int) -> str:
    """A text that this setting takes; another one for each number."""
    if ORIGINS[name].choices:
        return ORIGINS[name].choices[number % 2]
    return SAMPLES.get(name, "value{}").format(number) if name != "vault_capath" else "/" * number


def value(name: str, number: int) -> object:
    """What becomes of that text."""
    return ORIGINS[name].read(sample(name, number))


def gathered(name: str, environ: dict[str, str], **flags: str | bool | None) -> object:
    """That setting, with the others as they must be."""
    others = ENOUGH | {
        "BAO_CLIENT_CERT": os.devnull,
        "BAO_CLIENT_KEY": os.devnull,
        "BAO_ROLE_ID": "role",
        "BAO_SECRET_ID": "secret",
    }
    others = {key: text for key, text in others.items() if key not in ORIGINS[name].env}
    found = getattr(Settings.from_env(others | environ, **flags), name)
    # Which servers are excluded is the subject of test_proxies.py.
    return found._replace(exceptions=None) if isinstance(found, Proxy) else found


def complaint(environ: Mapping[str, str], **flags: str | bool | None) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ, **flags)
    assert caught.value.hint
    return str(caught.value)


def file_with(folder: Path, content: bytes) -> str:
    path = folder / "file"
    path.write_bytes(content)
    return str(path)


def test_the_environment_variables_are_the_promised_ones() -> None:
    assert {name: origin.env for name, origin in ORIGINS.items()} == PROMISED


def test_what_is_required_and_what_the_rest_defaults_to() -> None:
    settings = Settings.from_env(ENOUGH)
    assert {name for name, origin in ORIGINS.items() if origin.required} == {
        "user_id", "company_name", "url", "vault_addr",
    }  # fmt: skip
    assert {name: getattr(settings, name) for name, origin in ORIGINS.items() if not origin.required} == {
        "ca_cert": None,
        "proxy": None,
        "no_proxy": None,
        "allow_plain_http": False,
        "vault_namespace": None,
        "vault_cacert": None,
        "vault_cacert_bytes": None,
        "vault_capath": None,
        "vault_tls_server_name": None,
        "vault_client_cert": None,
        "vault_client_key": None,
        "vault_proxy": None,
        "vault_timeout": None,
        "vault_max_retries": None,
        "vault_rate_limit": None,
        "auth": "token",
        "auth_mount": None,
        "auth_namespace": None,
        "auth_role": None,
        "auth_audience": None,
        "auth_username": None,
        "vault_token": Secret("hvs.token"),
        "vault_config_path": None,
        "role_id": None,
        "secret_id": None,
        "wrapped_secret_id": None,
        "vault_jwt": None,
        "vault_password": None,
        "actions_url": None,
        "actions_token": None,
        "mount": "secret",
        "kv_version": None,
        "path_prefix": "klearstack",
        "min_ttl": 60.0,
        "timeout": 10.0,
        "deadline": 60.0,
        "on_vault_error": "fail",
        "on_user_mismatch": "fail",
        "lock_dir": None,
    }


def test_the_process_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ENOUGH.items():
        monkeypatch.setenv(name, text)
    assert Settings.from_env() == Settings.from_env(ENOUGH)


def test_settings_know_whose_tokens_are_asked_for() -> None:
    assert Settings.from_env(ENOUGH).identity() == Identity(user_id="26", company_name="Acme")


def test_a_flag_ranks_above_the_environment() -> None:
    for name in [name for name, origin in ORIGINS.items() if origin.flag and origin.env]:
        environ = dict.fromkeys(ORIGINS[name].env, sample(name, 1))
        assert gathered(name, environ, **{name: sample(name, 2)}) == value(name, 2), name
        assert gathered(name, environ, **{name: None}) == value(name, 1), name


def test_bao_ranks_above_vault() -> None:
    for name in [name for name, origin in ORIGINS.items() if len(origin.env) == 2]:
        bao, vault = ORIGINS[name].env
        if name in {"proxy", "no_proxy"}:  # not Vault's: upper case ranks above lower case
            assert bao == vault.upper(), name
            continue
        assert (bao.partition("_")[0], vault.partition("_")[0]) == ("BAO", "VAULT"), name
        assert gathered(name, {bao: sample(name, 1), vault: sample(name, 2)}) == value(name, 1), name
        assert gathered(name, {bao: "", vault: sample(name, 2)}) == value(name, 2), name


def test_a_variable_ranks_above_the_file_that_it_may_name(tmp_path: Path) -> None:
    for name, variable in VARIABLES:
        path = file_with(tmp_path, sample(name, 2).encode())
        assert gathered(name, {variable: sample(name, 1), f"{variable}_FILE": path}) == value(name, 1), (
            variable
        )
        assert gathered(name, {variable: "", f"{variable}_FILE": path}) == value(name, 2), variable
        assert gathered(name, {f"{variable}_FILE": path}) == value(name, 2), variable


def test_an_empty_variable_counts_as_unset() -> None:
    for name, variable in [(name, variable) for name, variable in VARIABLES if not ORIGINS[name].required]:
        if name == "vault_token":
            with pytest.raises(SettingsError, match="VAULT_TOKEN or BAO_TOKEN is missing"):
                gathered(name, {variable: ""})
            continue
        if name in {"vault_client_cert", "vault_client_key"}:  # one without the other is refused: see below
            continue
        assert gathered(name, {variable: "", f"{variable}_FILE": ""}) == gathered(name, {}), variable


def test_an_empty_required_variable_is_missing() -> None:
    for variable in ENOUGH:
        said = complaint(ENOUGH | {variable: ""})
        assert variable in said, variable
        assert "missing" in said, variable


@pytest.mark.parametrize("name", [name for name, origin in ORIGINS.items() if origin.required])
def test_an_empty_required_flag_is_an_error_and_nothing_is_taken_instead(name: str, tmp_path: Path) -> None:
    path = file_with(tmp_path, sample(name, 1).encode())
    for environ in ({}, {f"{variable}_FILE": path for variable in ORIGINS[name].env}):
        said = complaint(ENOUGH | environ, **{name: ""})
        assert said.startswith(f"--{name.replace('_', '-')} (")
        assert said.endswith(") is given but empty: give a value, or leave it out.")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\r\n"):
        for variable in sorted(ENOUGH.keys() - {"VAULT_TOKEN"}):
            environ = ENOUGH | {variable: "", f"{variable}_FILE": file_with(tmp_path, content)}
            assert complaint(environ).endswith(
                f", as read from the file that {variable}_FILE names, is given but empty: give a value, or leave it out."
            ), (content, variable)


@pytest.mark.parametrize("auth", ["token", "approle", "kubernetes", "jwt"])
def test_an_empty_file_of_a_credential_is_an_error_if_the_login_needs_it(auth: str, tmp_path: Path) -> None:
    empty = file_with(tmp_path, b" \n")
    names = ("VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_JWT")
    own = {"KLEARSTACK_VAULT_AUTH": auth, "KLEARSTACK_VAULT_AUTH_ROLE": "ci"}
    environ = home_with(tmp_path, b"hvs.another") | own | {f"{name}_FILE": empty for name in names}
    needed = {"token": names[:1], "approle": names[1:3], "jwt": names[3:], "kubernetes": names[3:]}[auth]
    assert complaint(environ) == (
        "; ".join(
            f"{name} or BAO{name[5:]}, as read from the file that {name}_FILE names, is empty"
            for name in needed
        )
        + "."
    )


def test_all_that_is_missing_is_named_in_one_error() -> None:
    assert complaint({}) == (
        "--user-id (KLEARSTACK_USER_ID) is missing; --company-name (KLEARSTACK_COMPANY_NAME) is missing; "
        "--url (KLEARSTACK_URL) is missing; --vault-addr (VAULT_ADDR or BAO_ADDR) is missing; "
        "VAULT_TOKEN or BAO_TOKEN is missing, and ~/.vault-token contains none."
    )


def test_all_that_is_wrong_is_named_in_one_error_with_what_is_missing() -> None:
    said = complaint(
        {
            "KLEARSTACK_URL": "ftp://x",
            "BAO_ADDR": "x",
            "VAULT_TOKEN": "a\nb",
            "VAULT_NAMESPACE": "..",
            "KLEARSTACK_VAULT_AUTH": "magic",
            "KLEARSTACK_MIN_TTL": "soon",
            "KLEARSTACK_DEADLINE": "0",
            "KLEARSTACK_ON_VAULT_ERROR": "panic",
            "VAULT_CACERT": "/nonexistent/ca.pem",
            "VAULT_CLIENT_KEY": os.devnull,
            "KLEARSTACK_COMPANY_NAME_FILE": "/nonexistent/company",
        }
    )
    for part in (
        "--user-id (KLEARSTACK_USER_ID) is missing",
        "--company-name (KLEARSTACK_COMPANY_NAME) cannot be read from the file that KLEARSTACK_COMPANY_NAME_FILE names",
        "--url (KLEARSTACK_URL) must look like https://host[:port]",
        "--vault-addr (VAULT_ADDR or BAO_ADDR) must look like https://host[:port]",
        "VAULT_TOKEN or BAO_TOKEN contains characters that are not allowed in a credential",
        "--vault-namespace (VAULT_NAMESPACE or BAO_NAMESPACE) may contain only letters, digits",
        f"--auth (KLEARSTACK_VAULT_AUTH) must be one of {', '.join(LOGINS)}",
        "--min-ttl (KLEARSTACK_MIN_TTL) is not a duration",
        "--deadline (KLEARSTACK_DEADLINE) must be more than 0 seconds",
        "--on-vault-error (KLEARSTACK_ON_VAULT_ERROR) must be one of fail, bypass",
        "--vault-cacert (VAULT_CACERT or BAO_CACERT) names a file that cannot be read",
        "--vault-client-cert (VAULT_CLIENT_CERT or BAO_CLIENT_CERT) and --vault-client-key (VAULT_CLIENT_KEY or BAO_CLIENT_KEY) must",
    ):
        assert part in said


def test_a_role_or_an_audience_that_is_no_name_is_an_error(tmp_path: Path) -> None:
    for name, variable in (
        ("auth_role", "KLEARSTACK_VAULT_AUTH_ROLE"),
        ("auth_audience", "KLEARSTACK_VAULT_AUTH_AUDIENCE"),
    ):
        for text, said in (
            ("ci\udcff", "is not valid UTF-8"),
            ("ci\u200b", "has the control or invisible character U+200B at position 3"),
            ("ci\n", "has the control or invisible character U+000A at position 3"),
            (" ci", "begins or ends with white space"),
        ):
            with pytest.raises(SettingsError) as caught:
                Settings.from_env(ENOUGH | {variable: text})
            assert f"({variable}) {said}" in str(caught.value), (name, text)
        for text in ("ci", "https://vault.example/a?b#c d", "caf\u00e9"):
            assert gathered(name, {variable: text}) == text


@pytest.mark.parametrize(
    ("content", "user"),
    [
        (b"26", "26"),
        (b"26\n", "26"),
        (b"26\r\n", "26"),
        (b"\xc3\xa9mile\n", "\u00e9mile"),
    ],
)
def test_one_line_end_at_the_end_of_a_file_is_nobodys_name(content: bytes, user: str, tmp_path: Path) -> None:
    assert gathered("user_id", {"KLEARSTACK_USER_ID_FILE": file_with(tmp_path, content)}) == user


INVISIBLE = {
    "Acme\n": "U+000A at position 5",
    "Acme\t": "U+0009 at position 5",
    "\ufeffAcme": "U+FEFF at position 1",
    "Ac\u200bme": "U+200B at position 3",
    "Acme ": "begins or ends with white space",
    "\u00a0Acme": "begins or ends with white space",
}


def test_a_name_with_what_nobody_sees_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    for name in ("user_id", "company_name"):
        (variable,) = ORIGINS[name].env
        called = f"--{name.replace('_', '-')} ({variable})"
        for text, problem in INVISIBLE.items():
            path = file_with(tmp_path, f"{text}\n".encode())
            for said in (
                complaint(ENOUGH, **{name: text}),
                complaint(ENOUGH | {variable: text}),
                complaint(ENOUGH | {variable: "", f"{variable}_FILE": path}),
            ):
                assert said.startswith(called), (name, text)
                assert problem in said, (name, text)
                assert "Acme" not in said, (name, text)
            assert f"as read from the file that {variable}_FILE names" in said, (name, text)


def test_a_name_that_is_not_nfc_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    composed, decomposed = (unicodedata.normalize(form, "\u00c4hre") for form in ("NFC", "NFD"))
    assert Settings.from_env(ENOUGH, company_name=composed).company_name == composed
    assert caplog.messages == []
    assert Settings.from_env(ENOUGH, company_name=decomposed).company_name == decomposed
    (warning,) = caplog.messages
    assert warning.startswith("--company-name (KLEARSTACK_COMPANY_NAME) is not NFC-normalized")
    assert "hre" not in warning


def test_an_address_with_a_line_end_is_refused() -> None:
    for variable in ("VAULT_ADDR", "BAO_ADDR", "KLEARSTACK_URL"):
        for address in (
            "https://vault.example\n",
            "https://vault.example\r\n",
            "\thttps://v",
            "unix:///run/v\n",
        ):
            said = complaint(ENOUGH | {variable: address})
            assert "must look like https://host[:port]" in said, (variable, address)


def test_space_around_a_secret_is_dropped(tmp_path: Path) -> None:
    for name in IN_HEADERS:
        for content in (b"hvs.token", b"hvs.token\n", b"hvs.token\r\n", b" hvs.token \n\n"):
            for variable in ORIGINS[name].env:
                for environ in (
                    {f"{variable}_FILE": file_with(tmp_path, content)},
                    {variable: content.decode()},
                ):
                    assert gathered(name, environ) == Secret("hvs.token"), (environ, content)


def test_a_secret_that_would_break_a_header_is_refused(tmp_path: Path) -> None:
    others = {key: text for key, text in ENOUGH.items() if key != "VAULT_TOKEN"}
    for content in ("a\nb", "a\r\nX-Header: b", "a\tb", "\u00e9", "a\x00b", "a\x7f", "a\u2028b"):
        path = file_with(tmp_path, content.encode())
        for variable in [variable for name in IN_HEADERS for variable in ORIGINS[name].env]:
            for environ in ({variable: content}, {f"{variable}_FILE": path}):
                said = complaint(others | environ)
                assert "contains characters that are not allowed in a credential" in said, (environ, content)


@pytest.mark.parametrize("name", ["missing", "folder", "latin-1"])
def test_a_file_that_cannot_be_read_is_named_by_its_variable(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin-1").write_bytes(b"\xe9mile")
    for setting, variable in VARIABLES:
        environ = {key: text for key, text in ENOUGH.items() if key not in ORIGINS[setting].env}
        said = complaint(environ | {f"{variable}_FILE": str(tmp_path / name)})
        assert f"cannot be read from the file that {variable}_FILE names" in said, variable
        assert str(tmp_path) not in said, variable


def home_with(folder: Path, content: bytes) -> dict[str, str]:
    (folder / ".vault-token").write_bytes(content)
    return {name: text for name, text in ENOUGH.items() if name != "VAULT_TOKEN"} | {"HOME": str(folder)}


@pytest.mark.parametrize("content", [b"hvs.home", b"hvs.home\n", b" hvs.home\r\n"])
def test_the_token_in_the_home_folder_comes_last(content: bytes, tmp_path: Path) -> None:
    environ = home_with(tmp_path, content)
    assert Settings.from_env(environ).vault_token == Secret("hvs.home")
    assert Settings.from_env(environ | {"VAULT_TOKEN": "hvs.env"}).vault_token == Secret("hvs.env")
    assert Settings.from_env(environ | {"VAULT_TOKEN": ""}).vault_token == Secret("hvs.home")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_home_folder_without_a_readable_token_has_none(content: bytes, tmp_path: Path) -> None:
    assert (
        complaint(home_with(tmp_path, content))
        == "VAULT_TOKEN or BAO_TOKEN is missing, and ~/.vault-token contains none."
    )


def test_no_home_folder_is_needed() -> None:
    assert Settings.from_env(ENOUGH).vault_token == Secret("hvs.token")
    environ = ENOUGH | {"VAULT_TOKEN": "", "HOME": "/nonexistent"}
    assert "VAULT_TOKEN or BAO_TOKEN is missing" in complaint(environ)


def test_a_token_in_the_home_folder_that_would_break_a_header_is_refused(tmp_path: Path) -> None:
    assert "CANARY" not in complaint(home_with(tmp_path, b"hvs.CANARY\nhvs.second\n"))


@pytest.mark.parametrize("blank", [" ", "\n", "\t \r\n"])
def test_a_secret_of_nothing_but_space_is_missing(blank: str) -> None:
    assert "VAULT_TOKEN or BAO_TOKEN is missing" in complaint(ENOUGH | {"VAULT_TOKEN": blank})


@pytest.mark.parametrize("url", ["http://api.example", "http://10.0.0.1:8080", "http://localhost.example"])
def test_plain_http_to_another_host_must_be_allowed(url: str) -> None:
    assert "--allow-plain-http" in complaint(ENOUGH | {"KLEARSTACK_URL": url})
    assert "--allow-plain-http" in complaint(ENOUGH, url=url)
    assert "--allow-plain-http" in complaint(ENOUGH, url=url, allow_plain_http=False)
    settings = Settings.from_env(ENOUGH, url=url, allow_plain_http=True)
    assert settings.url == url
    assert settings.allow_plain_http is True


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://api.example"]
)
def test_plain_http_on_loopback_need_not(url: str) -> None:
    assert Settings.from_env(ENOUGH, url=url).url == url


def test_no_variable_allows_plain_http() -> None:
    environ = ENOUGH | {"KLEARSTACK_URL": "http://api.example", "KLEARSTACK_ALLOW_PLAIN_HTTP": "1"}
    assert "--allow-plain-http" in complaint(environ)


@pytest.mark.parametrize("name", FILES)
def test_a_certificate_file_must_be_readable(name: str, tmp_path: Path) -> None:
    said = complaint(ENOUGH, **{name: str(tmp_path / "missing.pem")})
    assert f"{worded(named(name))} names a file that cannot be read" in said
    assert str(tmp_path) not in said


def test_a_client_certificate_and_its_key_go_together() -> None:
    for alone in ("vault_client_cert", "vault_client_key"):
        assert (
            complaint(ENOUGH, **{alone: os.devnull})
            == "--vault-client-cert (VAULT_CLIENT_CERT or BAO_CLIENT_CERT) and "
            "--vault-client-key (VAULT_CLIENT_KEY or BAO_CLIENT_KEY) must be given together."
        )
    Settings.from_env(ENOUGH, vault_client_cert=os.devnull, vault_client_key=os.devnull)


def test_approle_needs_both_its_ids_and_no_token() -> None:
    environ = ENOUGH | {"VAULT_TOKEN": "", "KLEARSTACK_VAULT_AUTH": "approle"}
    assert (
        complaint(environ)
        == "VAULT_ROLE_ID or BAO_ROLE_ID is missing; VAULT_SECRET_ID or BAO_SECRET_ID is missing."
    )
    assert complaint(environ | {"VAULT_ROLE_ID": "r"}) == "VAULT_SECRET_ID or BAO_SECRET_ID is missing."
    assert complaint(environ | {"BAO_SECRET_ID": "s"}) == "VAULT_ROLE_ID or BAO_ROLE_ID is missing."
    settings = Settings.from_env(environ | {"VAULT_ROLE_ID": "r", "BAO_SECRET_ID": "s"})
    assert (settings.role_id, settings.secret_id, settings.vault_token) == (Secret("r"), Secret("s"), None)


def test_no_other_login_takes_the_token_of_the_home_folder(tmp_path: Path) -> None:
    credentials = {"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s", "VAULT_JWT": "j", "VAULT_PASSWORD": "p"}
    credentials |= {"VAULT_CLIENT_CERT": os.devnull, "VAULT_CLIENT_KEY": os.devnull}
    environ = home_with(tmp_path, b"hvs.home") | credentials
    for auth in LOGINS[1:]:
        settings = Settings.from_env(environ, auth=auth, auth_role="ci", auth_username="u")
        assert settings.vault_token is None, auth


def test_each_login_names_what_it_needs() -> None:
    password = "VAULT_PASSWORD or BAO_PASSWORD is missing."
    needs_user = f"--auth-username (KLEARSTACK_VAULT_AUTH_USERNAME) is missing; {password}"
    assert complaint(ENOUGH, auth="userpass") == complaint(ENOUGH, auth="ldap") == needs_user
    assert complaint(ENOUGH, auth="ldap", auth_username="u") == password
    cert = complaint(ENOUGH, auth="cert")
    assert cert.startswith(
        "--vault-client-cert (VAULT_CLIENT_CERT or BAO_CLIENT_CERT) is missing; --vault-client-key"
    )
    assert Settings.from_env(ENOUGH | {"VAULT_TOKEN": ""}, auth="none").vault_token is None


def test_a_wrapped_secret_id_replaces_the_secret_id() -> None:
    environ = ENOUGH | {"VAULT_ROLE_ID": "r", "VAULT_WRAPPED_SECRET_ID": "hvs.wrapped"}
    assert Settings.from_env(environ, auth="approle").wrapped_secret_id == Secret("hvs.wrapped")
    environ = ENOUGH | {"VAULT_ROLE_ID": "r", "VAULT_WRAPPED_SECRET_ID_FILE": os.devnull}
    assert complaint(environ, auth="approle").endswith("VAULT_WRAPPED_SECRET_ID_FILE names, is empty.")


def test_the_id_token_of_github_actions_replaces_a_jwt() -> None:
    job = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://github.example/id?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request",
    }
    settings = Settings.from_env(ENOUGH | job, auth="jwt", auth_audience="vault")
    assert (settings.vault_jwt, settings.actions_token) == (None, Secret("request"))
    for name in job:
        assert complaint(ENOUGH | job | {name: ""}, auth="jwt") == "VAULT_JWT or BAO_JWT is missing."


def test_a_url_that_github_actions_does_not_set_is_refused() -> None:
    for url in ("nothing", "https://github.example", "ftp://x/?a", "https://x/?a#b", "https://x/?\x7f"):
        said = complaint(ENOUGH | {"ACTIONS_ID_TOKEN_REQUEST_URL": url})
        assert "ACTIONS_ID_TOKEN_REQUEST_URL" in said, url


@pytest.mark.parametrize(("text", "namespace"), [("root", ""), ("/", ""), ("root/", ""), ("a/b/c/", "a/b/c")])
def test_a_namespace_may_be_the_root_or_have_any_depth(text: str, namespace: str) -> None:
    settings = Settings.from_env(ENOUGH, vault_namespace=text, auth_namespace=text)
    assert (settings.vault_namespace, settings.auth_namespace) == (namespace, namespace)


def test_a_namespace_that_leads_elsewhere_is_refused() -> None:
    for text in ("..", "a/../b", "a//b", "a b", "a/."):
        for name in ("vault_namespace", "auth_namespace"):
            flag = f"--{name.replace('_', '-')}"
            assert complaint(ENOUGH, **{name: text}).startswith(f"{flag} ("), text


def test_a_user_name_that_would_lead_elsewhere_is_refused() -> None:
    for name in ("a/b", "..", ".", " ", "a\nb", "a\u200bb"):
        assert "--auth-username" in complaint(ENOUGH, auth_username=name), name


def test_a_password_is_taken_exactly_as_given(tmp_path: Path) -> None:
    environ = ENOUGH | {"KLEARSTACK_VAULT_AUTH": "ldap", "KLEARSTACK_VAULT_AUTH_USERNAME": "DOMAIN\\Zoë"}
    for text, kept in ((" pâss wörd \n\n", " pâss wörd \n"), ("x\r\n", "x")):
        file = file_with(tmp_path, text.encode())
        assert Settings.from_env(environ | {"VAULT_PASSWORD_FILE": file}).vault_password == Secret(kept)
        assert Settings.from_env(environ | {"VAULT_PASSWORD": text}).vault_password == Secret(text)
    empty = {"VAULT_PASSWORD_FILE": file_with(tmp_path, b"\n")}
    assert complaint(environ | empty).endswith("VAULT_PASSWORD_FILE names, is empty.")
    told = complaint(environ | {"VAULT_PASSWORD": "\udcff"})
    assert told == "VAULT_PASSWORD or BAO_PASSWORD is not UTF-8."


def test_jwt_needs_one_and_no_role() -> None:
    assert complaint(ENOUGH, auth="jwt") == "VAULT_JWT or BAO_JWT is missing."
    settings = Settings.from_env(ENOUGH | {"VAULT_JWT": "j"}, auth="jwt")
    assert (settings.vault_jwt, settings.auth_role) == (Secret("j"), None)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service account token of a pod, which is not there yet; these tests may run in one."""
    assert Path("/var/run/secrets/kubernetes.io/serviceaccount/token") == SERVICE_ACCOUNT
    monkeypatch.setattr("vault_plugin.settings.logins.SERVICE_ACCOUNT", tmp_path / "token")
    return tmp_path / "token"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_kubernetes_needs_a_role_and_a_jwt(content: bytes | None, pod: Path) -> None:
    if content is not None:
        pod.write_bytes(content)
    assert complaint(ENOUGH, auth="kubernetes") == (
        "--auth-role (KLEARSTACK_VAULT_AUTH_ROLE) is missing; "
        "VAULT_JWT or BAO_JWT is missing, and so is a pod's service account token."
    )


def test_a_pods_service_account_token_comes_last_and_for_kubernetes_only(pod: Path) -> None:
    pod.write_text("pods.own.jwt\n")
    role = {"KLEARSTACK_VAULT_AUTH_ROLE": "ci"}
    assert Settings.from_env(ENOUGH | role, auth="kubernetes").vault_jwt == Secret("pods.own.jwt")
    given = Settings.from_env(ENOUGH | role | {"VAULT_JWT": "given"}, auth="kubernetes")
    assert given.vault_jwt == Secret("given")
    assert complaint(ENOUGH | role, auth="jwt") == "VAULT_JWT or BAO_JWT is missing."


def test_for_many_no_identity_is_missing_or_taken_and_all_else_is_as_ever() -> None:
    nobody = {name: text for name, text in ENOUGH.items() if "URL" in name or "VAULT" in name}
    many = Settings.for_many(nobody, mount="kv")
    assert many == Settings.from_env(nobody, user_id="-", company_name="-", mount="kv")
    assert Settings.for_many(ENOUGH, user_id="26") == Settings.for_many(nobody)
    with pytest.raises(SettingsError, match=r"^--url \(KLEARSTACK_URL\) is missing; --vault-addr"):
        Settings.for_many({})


def test_no_secret_has_a_flag_and_every_one_is_a_secret() -> None:
    assert {name for name, origin in ORIGINS.items() if origin.secret} == set(SECRETS)
    assert {name for name, origin in ORIGINS.items() if not origin.flag} == {
        *SECRETS,
        *("actions_url", "lock_dir", "no_proxy", "vault_config_path"),
        *("vault_cacert_bytes", "vault_timeout", "vault_max_retries", "vault_rate_limit"),
    }


def test_each_setting_has_a_group_and_each_secret_is_a_login() -> None:
    assert {origin.group for origin in ORIGINS.values()} == set(Group)
    assert {origin.group for origin in ORIGINS.values() if origin.secret} == {Group.VAULT_LOGIN}
    assert {name for name, origin in ORIGINS.items() if origin.identity} == {"user_id", "company_name"}


def test_a_secret_type_is_declared_as_a_secret() -> None:
    assert {name for name, kind in get_type_hints(Settings).items() if "Secret" in str(kind)} == set(SECRETS)


def test_choices_are_the_promised_ones() -> None:
    assert {name: origin.choices for name, origin in ORIGINS.items() if origin.choices} == {
        "auth": LOGINS,
        "kv_version": ("1", "2"),
        "on_vault_error": ("fail", "bypass"),
        "on_user_mismatch": ("fail", "warn"),
    }


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_env(ENOUGH)
    with pytest.raises(AttributeError):
        settings.mount = "kv"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del settings.mount
    assert settings.mount == "secret"


def test_settings_are_equal_if_all_values_are() -> None:
    settings, same = Settings.from_env(ENOUGH), Settings.from_env(ENOUGH)
    assert {settings, same} == {settings}
    assert settings != settings.replace(mount="kv")
    assert settings.replace(mount="kv").replace(mount="secret") == settings
    assert settings != "settings"


@pytest.mark.parametrize(
    ("name", "value"), [("min_ttl", 300), ("user_id", 26), ("timeout", True), ("mount", b"kv")]
)
def test_a_value_that_is_no_string_is_refused(name: str, value: Any) -> None:
    told = complaint(ENOUGH, **{name: value})
    assert told == f"{worded(named(name))} is not a string, but {type(value).__name__}."


@pytest.mark.parametrize(
    "given",
    [
        {"VAULT_TOKEN": "hvs.\u00e9"},
        {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": "\u00e9", "VAULT_SECRET_ID": "s"},
        {"KLEARSTACK_VAULT_AUTH": "userpass", "KLEARSTACK_VAULT_AUTH_USERNAME": "a/b", "VAULT_PASSWORD": "p"},
        {
            "KLEARSTACK_VAULT_AUTH": "jwt",
            "ACTIONS_ID_TOKEN_REQUEST_URL": "x",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
        },
    ],
)
def test_what_is_wrong_is_not_missing_as_well(given: dict[str, str]) -> None:
    assert "missing" not in complaint(ENOUGH | given)


@pytest.mark.parametrize("url", ["https://[zz]/?x=1", "https://[::1/?x=1"])
def test_no_text_of_python_is_in_the_complaint_about_a_url(url: str) -> None:
    own = {
        "KLEARSTACK_VAULT_AUTH": "jwt",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
        "ACTIONS_ID_TOKEN_REQUEST_URL": url,
    }
    told = complaint(ENOUGH | own)
    assert told == "ACTIONS_ID_TOKEN_REQUEST_URL is not a URL with a query, as GitHub Actions sets it."


def test_there_are_no_other_settings() -> None:
    with pytest.raises(TypeError, match="no setting colour"):
        Settings(colour="red")  # type: ignore[call-arg]


def test_every_setting_has_a_help_text_that_is_a_sentence() -> None:
    for origin in ORIGINS.values():
        assert len(origin.help) > 10
        assert origin.help.endswith(".")


CANARY = "hvs.CANARY-0123456789"


def test_no_secret_is_shown_by_repr() -> None:
    environ = ENOUGH | {ORIGINS[name].env[-1]: CANARY for name in SECRETS}
    settings = Settings.from_env(environ)
    assert {getattr(settings, name) for name in SECRETS} == {Secret(CANARY)}
    assert "CANARY" not in repr(settings) + str(settings) + f"{settings}"


def test_repr_hides_what_it_takes_to_mint_a_token() -> None:
    environ = ENOUGH | {"KLEARSTACK_USER_ID": "CANARY", "KLEARSTACK_COMPANY_NAME": "CANARY"}
    assert "CANARY" not in repr(Settings.from_env(environ))


@pytest.mark.parametrize(
    "form",
    ["{}", "{}\n{}", "{}\u00e9", "https://user:{}@api.example", "/nonexistent/{}", "1{}", "{}\udcff"],
    ids=ascii,
)
def test_no_value_is_quoted_by_the_error_that_refuses_it(form: str, tmp_path: Path) -> None:
    text = form.replace("{}", CANARY)
    environ = {variable: text for name, variable in VARIABLES if name != "lock_dir"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


def test_no_file_is_quoted_by_the_error_that_refuses_it(tmp_path: Path) -> None:
    for content in (CANARY.encode(), CANARY.encode() + b"\xff", b"a\n" + CANARY.encode()):
        path = file_with(tmp_path, content)
        with pytest.raises(SettingsError) as caught:
            Settings.from_env({f"{variable}_FILE": path for _, variable in VARIABLES})
        assert "CANARY" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_names_no_possible_file_is_refused(name: str, tmp_path: Path) -> None:
    path = file_with(tmp_path, b"/etc/ssl\x00/ca.pem")
    said = complaint(ENOUGH | {f"{ORIGINS[name].env[0]}_FILE": path})
    assert f"{worded(named(name))} names a file that cannot be read" in said


VALUES = st.binary().map(lambda value: os.fsdecode(value.replace(b"\0", b"")))  # what an environment can hold


@given(st.dictionaries(st.sampled_from([variable for _, variable in VARIABLES]), VALUES))
def test_no_environment_gives_anything_but_settings_or_a_settings_error(environ: dict[str, str]) -> None:
    try:
        Settings.from_env(ENOUGH | environ)
    except SettingsError as exc:
        assert str(exc).endswith(".")  # noqa: PT017  what is tested is that nothing else is raised


def test_an_empty_flag_leaves_the_word_to_the_environment_but_an_identity_must_not_become_another() -> None:
    assert Settings.from_env(ENOUGH | {"KLEARSTACK_VAULT_MOUNT": "kv"}, mount="").mount == "kv"
    assert "--user-id" in complaint(ENOUGH | {"KLEARSTACK_USER_ID": "27"}, user_id="")


def test_a_setting_that_there_is_not_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="minttl"):
        Settings.from_env(ENOUGH, minttl="5")


@pytest.mark.parametrize(
    ("flag", "environ", "company"),
    [
        (None, {}, None),
        ("Acme", {"KLEARSTACK_COMPANY_NAME": "Initech"}, "Acme"),
        (None, {"KLEARSTACK_COMPANY_NAME": "Initech"}, "Initech"),
        (None, {"KLEARSTACK_COMPANY_NAME": ""}, None),
    ],
)
def test_the_company_of_those_who_name_none_is_that_of_flag_or_environment(
    flag: str | None, environ: dict[str, str], company: str | None
) -> None:
    assert default_company(flag, environ) == company


def test_the_company_of_those_who_name_none_may_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "company"
    monkeypatch.setenv("KLEARSTACK_COMPANY_NAME_FILE", str(path))
    with pytest.raises(
        SettingsError, match=r"^--company-name \(KLEARSTACK_COMPANY_NAME\) cannot be read from"
    ) as caught:
        default_company(None)
    assert str(path) not in str(caught.value)
    path.write_text("Acme & Sons\n")
    assert default_company(None) == "Acme & Sons"
    assert default_company("Initech") == "Initech"
    for content, complaint in (("", "is given but empty"), ("Acme\u200b", "U+200B at position 5")):
        path.write_text(content)
        with pytest.raises(SettingsError, match=re.escape(complaint)):
            default_company(None)
    with pytest.raises(
        SettingsError, match=r"^--company-name \(KLEARSTACK_COMPANY_NAME\) is given but empty"
    ):
        default_company("", {"KLEARSTACK_COMPANY_NAME": "Initech"})


def test_the_deadline_is_known_before_the_other_settings() -> None:
    for flag, environ, seconds in (
        ("5", {"KLEARSTACK_DEADLINE": "6"}, 5),
        (None, {"KLEARSTACK_DEADLINE": "1m"}, 60),
        ("", {}, Settings.deadline),
        (None, {"KLEARSTACK_DEADLINE": "soon"}, Settings.deadline),
        ("-1", {}, Settings.deadline),
        (None, {"KLEARSTACK_DEADLINE_FILE": "/nonexistent"}, Settings.deadline),
    ):
        assert seconds - 1 < known_deadline(flag, environ).left() <= seconds, (flag, environ)


def test_the_deadline_of_this_process_is_its_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEARSTACK_DEADLINE", "7")
    assert 6 < known_deadline().left() <= 7


def test_a_deadline_that_cannot_be_read_in_time_has_passed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    environ = {"KLEARSTACK_DEADLINE_FILE": str(tmp_path / "fifo")}
    assert gather_deadline(ORIGINS["deadline"], None, environ, 0.05).left() == 0
    os.close(os.open(tmp_path / "fifo", os.O_RDWR))  # and the thread ends


def test_what_has_passed_since_the_call_began_is_gone_from_the_deadline() -> None:
    began = time.monotonic() - 10
    for text, least, most in (("30", 19, 20), (None, 49, 50), ("5", -1, 0)):
        assert least < Settings.from_env(ENOUGH, began, deadline=text).deadline <= most, text
