"""Messages name a setting as the interface that shows them does."""

import ast
import logging
import re
from collections.abc import Iterator

import click
import pytest
from support.fakes import Run
from support.sources import trees

from vault_plugin import cli
from vault_plugin.broker.freshness import other_endpoint
from vault_plugin.commands.usage import words_of
from vault_plugin.errors import Failure, SettingsError, StoreError
from vault_plugin.failures import _KINDS, error_of
from vault_plugin.protocols import terraform
from vault_plugin.settings import Settings, environment
from vault_plugin.vault.record import unmanaged
from vault_plugin.wording import flag, named, speak, speaking, worded

SETTINGS = [*Settings.origins]
VARIABLES = {variable for one in Settings.origins.values() for variable in one.env}
WITH_SETTINGS = ("get", "exec", "helper", "sync", "watch", "doctor")


def command(name: str) -> click.Command:
    found = cli.cli.get_command(click.Context(cli.cli), name)
    assert found is not None
    return found


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


@pytest.mark.parametrize("face", WITH_SETTINGS)
def test_no_command_names_an_option_that_it_does_not_have(face: str) -> None:
    words = words_of(command(face))
    own = {option for param in command(face).params for option in param.opts} | {"--help"}
    for name in (*SETTINGS, "renew", "verbose", "help"):
        said = words(name)
        others = re.findall(r"`klearstack-vault get (--?[a-z-]+)`", said)
        assert options(said) - set(others) <= own, name
        assert "-v" not in said.split() or "-v" in own, name
        assert said, name


def test_terraform_has_keys_and_variables_and_no_options() -> None:
    for name in (*SETTINGS, "renew", "verbose", "help"):
        said = re.sub(r"`klearstack-vault [a-z]+ --?[a-z-]+`", "", terraform.WORDS(name))
        assert options(said) == set(), name
        assert name in (*terraform.REQUIRED, *terraform.OPTIONAL) or "in the query" not in said, name


def test_a_setting_goes_by_its_option_and_its_variable() -> None:
    get, sync = words_of(command("get")), words_of(command("sync"))
    assert get("url") == sync("url") == "--url (KLEARSTACK_URL)"
    assert (get("vault_token"), get("lock_dir")) == ("VAULT_TOKEN or BAO_TOKEN", "KLEARSTACK_LOCK_DIR")
    assert (get("deadline"), sync("deadline")) == ("--deadline (KLEARSTACK_DEADLINE)", "KLEARSTACK_DEADLINE")
    assert (get("user_id"), sync("user_id")) == (
        "--user-id (KLEARSTACK_USER_ID)",
        "`user_id` in the manifest",
    )
    assert terraform.WORDS("min_ttl") == "`min_ttl` in the query (KLEARSTACK_MIN_TTL)"
    assert terraform.WORDS("url") == "KLEARSTACK_URL"


def test_an_error_is_in_the_words_of_the_active_interface() -> None:
    error = StoreError(f"Wrong {named('url')}.", hint=f"Check {named('deadline')}.")
    assert error.line == "Wrong --url (KLEARSTACK_URL). Check --deadline (KLEARSTACK_DEADLINE)."
    with speaking(str.upper):
        assert (str(error), error.hint) == ("Wrong URL.", "Check DEADLINE.")
        with speaking():
            speak(terraform.WORDS)
            assert error.hint == "Check `deadline` in the query (KLEARSTACK_DEADLINE)."
        assert error.hint == "Check DEADLINE."
    assert "--url" in str(error)


def test_the_words_of_a_command_end_with_it(run: Run) -> None:
    before = worded(named("help"))
    assert "See `klearstack-vault exec --help`." in run("exec", "--", "true").err
    assert worded(named("help")) == before


@pytest.mark.parametrize("face", ["helper", "terraform"])
def test_an_interface_without_v_does_not_name_it(face: str) -> None:
    words = terraform.WORDS if face == "terraform" else words_of(command(face))
    with speaking(words):
        assert unmanaged().hint.endswith("; `klearstack-vault get -v` shows the path.")
        expected = "`renew` in the query" if face == "terraform" else "`klearstack-vault get --renew`"
        assert other_endpoint().hint.endswith(f"with {expected}.")


def test_each_failure_of_the_endpoint_is_worded_by_terraform() -> None:
    with speaking(terraform.WORDS):
        for cause in sorted(_KINDS):
            assert options(error_of(Failure(cause, 10), "https://api.example").line) == set(), cause


def texts(tree: ast.Module) -> Iterator[str]:
    """The texts in a module, but for docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_no_part_names_a_settings_option_or_variable_itself() -> None:
    flags = {flag(name) for name in SETTINGS}
    variables = re.compile(rf"\b({'|'.join(VARIABLES)})\b")
    assert trees()
    for module, tree in trees().items():
        if module.startswith("commands/"):
            continue
        told = [text for text in texts(tree) if " " in text]  # a sentence, not a name
        assert [text for text in told if options(text) & flags] == [], module
        if not module.startswith(("settings/", "demo/", "output/ci.")):
            assert [text for text in told if variables.search(text)] == [], module


def test_what_is_missing_and_what_is_wrong_is_carried_by_the_error() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"KLEARSTACK_MIN_TTL": "soon", "HOME": "/nonexistent"}, url="ftp://x")
    assert caught.value.missing == {"user_id", "company_name", "vault_addr", "vault_token"}
    assert caught.value.settings == caught.value.missing | {"min_ttl", "url"}


@pytest.mark.parametrize("name", ["VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"])
def test_skip_verify_gets_one_warning_that_says_what_to_do_instead(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    environment._warn_once.cache_clear()
    given = {
        "KLEARSTACK_USER_ID": "26",
        "KLEARSTACK_COMPANY_NAME": "Acme",
        "KLEARSTACK_URL": "https://api.example",
        "VAULT_ADDR": "https://vault.example",
        "VAULT_TOKEN": "hvs.CANARY",
    }
    for text in ("", "0", "false", "F", "yes"):  # which Vault's tools take for no, or for an error
        Settings.from_env(given | {name: text})
    for plain in ("http://vault.example", "unix:///run/agent.sock"):
        Settings.from_env(given | {name: "true", "VAULT_ADDR": plain})
    assert caplog.messages == []
    for text in ("1", "t", "TRUE", "true"):
        Settings.from_env(given | {name: text})
    assert "\n".join(caplog.messages) == (
        f"{name} has no effect: TLS certificates are always verified. If Vault's does not verify, name its CA with "
        "--vault-cacert (VAULT_CACERT or BAO_CACERT), or the name in the certificate with "
        "--vault-tls-server-name (VAULT_TLS_SERVER_NAME or BAO_TLS_SERVER_NAME)"
    )
    assert caplog.records[0].levelno == logging.WARNING


def test_unsupported_variables_of_other_tools_are_logged_once_at_v(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment._log_once.cache_clear()
    given = {
        "KLEARSTACK_USER_ID": "26",
        "KLEARSTACK_COMPANY_NAME": "Acme",
        "KLEARSTACK_URL": "https://api.example",
        "VAULT_ADDR": "https://vault.example",
        "VAULT_TOKEN": "hvs.CANARY",
    }
    ignored = {
        "VAULT_SRV_LOOKUP": "CANARY",
        "ALL_PROXY": "http://u:CANARY@p",
        "BAO_AGENT_ADDR": "https://x.example",
        "VAULT_MFA": "",
    }
    with caplog.at_level(logging.INFO, "vault_plugin"):
        Settings.from_env(given)
        assert caplog.messages == []
        for _ in range(2):
            Settings.from_env(given | ignored)
    assert caplog.messages == [
        "these environment variables are set but not supported, and have no effect: ALL_PROXY, BAO_AGENT_ADDR, VAULT_SRV_LOOKUP"
    ]
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert not environment.IGNORED & VARIABLES
