"""The README's tables are made from the code; run this file to write them anew."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from vault_plugin import errors
from vault_plugin import process as runner
from vault_plugin.protocols.protocols import VERSIONS
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import Origin

README = Path(__file__).parents[2] / "README.md"
MEANINGS = {
    0: ("done", ""),
    2: ("`--detailed-exitcode`: something was, or would be, minted or copied", ""),
    5: ("`sync`: some failed or were not tried; the others are done", "yes"),
    64: ("the command line makes no sense", "no"),
    65: (
        "the endpoint's token is no JWT, has expired, is of the wrong type, names another user, is misdated, or dies too soon to be stored",
        "no",
    ),
    69: ("the endpoint or Vault cannot be reached, is sealed, or answers 5xx after retries", "yes"),
    70: ("a bug of ours", "no"),
    73: ("an output or lock file cannot be created", "no"),
    74: ("standard output or an output file cannot be written", "no"),
    75: ("429, or another process held the lock until the deadline", "yes"),
    76: (
        "the endpoint's answer is not its contract: no JSON, a token missing, too long; likewise a query of Terraform, Kubernetes, Bazel or git, or a closed standard input",
        "no",
    ),
    77: ("the endpoint or Vault refuses (400, 401, 403, 404, a redirect; a failed login)", "no"),
    78: (
        "a setting is missing or wrong; a TLS certificate does not verify; `http://` where `https://` is spoken, or the other way round; what responds is not Vault; the endpoint misses a parameter; the Vault path is somebody else's, or holds a token of another endpoint",
        "no",
    ),
    126: ("`exec`: the command cannot be run", "no"),
    127: ("`exec`: there is no such command", "no"),
    130: ("Ctrl-C; 128 + n: signal n ended us, or the command of `exec`", ""),
}


def settings_table() -> str:
    rows = ["| flag | environment | default | |", "|---|---|---|---|"]
    for one in fields(Settings):
        origin: Origin = one.metadata["origin"]
        flag = f"`--{one.name.replace('_', '-')}`" if origin.flag else ""
        default = "required" if origin.required else ""
        if isinstance(one.default, float):
            default = f"`{one.default:g}`"
        elif one.name == "lock_dir":
            default = "`/tmp/klearstack-vault-UID`"
        elif one.default not in (None, False, MISSING):
            default = f"`{one.default}`"
        choices = (
            f" One of {', '.join(f'`{choice}`' for choice in origin.choices)}." if origin.choices else ""
        )
        rows.append(
            f"| {flag} | {', '.join(f'`{name}`' for name in origin.env)} | {default} | {origin.help}{choices} |"
        )
    return "\n".join(rows)


def exit_codes_table() -> str:
    rows = ["| code | meaning | try again? |", "|---|---|---|"]
    return "\n".join(
        rows + [f"| {code} | {meaning} | {again} |" for code, (meaning, again) in MEANINGS.items()]
    )


def with_tables(text: str) -> str:
    for name, table in (("settings", settings_table()), ("exit codes", exit_codes_table())):
        head, start, rest = text.partition(f"<!-- {name}: kept by tests/unit/test_readme.py -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        text = f"{head}{start}{table}\n{end}{tail}"
    return text


def test_the_tables_of_the_readme_are_those_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text
    assert settings_table() in text
    assert exit_codes_table() in text


def test_every_exit_code_of_the_code_is_in_the_readme() -> None:
    codes = {
        kind.exit_code
        for kind in (*vars(errors).values(), *vars(runner).values())
        if isinstance(kind, type) and issubclass(kind, errors.KlearstackVaultError)
    }
    assert codes == MEANINGS.keys() - {0, 2, 5, 130}


def test_an_error_is_retryable_where_the_readme_says_so() -> None:
    kinds = {
        kind
        for kind in (*vars(errors).values(), *vars(runner).values())
        if isinstance(kind, type) and issubclass(kind, errors.KlearstackVaultError)
    }
    assert {kind for kind in kinds if kind("").retryable} == {
        kind for kind in kinds if MEANINGS[kind.exit_code][1] == "yes"
    }
    assert errors.SourceError in kinds


def test_the_readme_calls_the_two_commands_as_they_are() -> None:
    text = README.read_text(encoding="utf-8")
    assert "python -m pip install '.[demo]' && klearstack-vault demo" in text
    assert "python -m pip install '.[test]' && python -m pytest" in text


def test_the_recipe_for_kubectl_names_the_cluster() -> None:
    text = README.read_text(encoding="utf-8")
    recipes = [
        yaml.safe_load(one) for one in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    (kubeconfig,) = [one for one in recipes if "users" in one]
    plugin = kubeconfig["users"][0]["user"]["exec"]
    assert (plugin["command"], plugin["args"]) == ("klearstack-vault", ["helper", "exec-credential"])
    assert (plugin["provideClusterInfo"], plugin["interactiveMode"]) == (True, "Never")
    assert plugin["apiVersion"] in VERSIONS
    assert "`provideClusterInfo: true` |" in text  # the table of callers says it, too


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
