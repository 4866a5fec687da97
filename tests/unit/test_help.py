"""`--help` and the man pages: what they say, and that a terminal of 80 columns shows all of it."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from support.fakes import Run
from support.pages import ROOT, read

from vault_plugin import cli
from vault_plugin.commands import help as layout
from vault_plugin.commands.options import _METAVARS, Option, SettingOption
from vault_plugin.settings import Settings

CONTEXT = click.Context(cli.cli, info_name="klearstack-vault", **cli.cli.context_settings)
COMMANDS = {
    name: command
    for name in cli.cli.list_commands(CONTEXT)
    if (command := cli.cli.get_command(CONTEXT, name)) is not None and not command.hidden
}
WITH_SETTINGS = ["get", "exec", "sync", "watch", "status", "delete", "helper", "doctor"]
MANUAL = sorted((ROOT / "docs" / "man").iterdir())


def shown(run: Run, *argv: str) -> str:
    done = run(*argv, "--help")
    assert (done.code, done.err) == (0, "")
    return done.out


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_summary_is_a_sentence_of_at_most_45_characters(run: Run) -> None:
    for name, command in COMMANDS.items():
        summary = command.get_short_help_str(limit=1000)
        assert re.fullmatch(r"[A-Z].*\.", summary), name
        assert len(summary) <= 45, name
        assert re.search(rf"^  {name} +{re.escape(summary)}$", shown(run), re.MULTILINE), name


def test_each_line_fits_80_columns(run: Run) -> None:
    for argv in ((), *((name,) for name in COMMANDS)):
        assert [line for line in shown(run, *argv).splitlines() if len(line) > 80] == [], argv


def test_the_help_of_an_option_is_a_sentence() -> None:
    for name, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param, click.Option):
                text = re.sub(r"\s*\[(env|default): .*", "", str(param.help))
                assert re.fullmatch(r"[A-Z`].*\.", text, re.DOTALL), f"{name} {param.name}: {text}"


def test_options_are_listed_in_groups_in_one_order(run: Run) -> None:
    found = {name: re.findall(r"^(\S.*):$", shown(run, name), re.MULTILINE) for name in COMMANDS}
    end = ["Examples", "Exit codes"]
    assert {name: groups for name, groups in found.items() if name not in WITH_SETTINGS} == {
        **{name: ["Options", *end] for name in ("terraform", "demo", "simulate")},
        "policy": ["Vault connection", "Vault login", "Vault storage", "General", *end],
    }
    for name in WITH_SETTINGS:
        groups = found[name]
        known = [group for group in layout.GROUPS if group in groups]
        assert groups == [*known, "General", "Environment variables without an option", *end]
    assert found["get"][:-4] == list(layout.GROUPS[1:])
    assert found["sync"][:-4] == found["watch"][:-4] == [one for one in layout.GROUPS if one != "Identity"]


def test_each_option_is_in_a_group_that_settings_declare_or_the_manifest() -> None:
    declared = {one.group for one in Settings.origins.values()} | {"Manifest", "Output"}
    assert declared == set(layout.GROUPS)
    for name in WITH_SETTINGS:
        told = click.Context(COMMANDS[name]).get_help()
        for param in COMMANDS[name].params:
            if isinstance(param, click.Option):
                assert isinstance(param, Option), (name, param.name)
                assert param.group in declared, (name, param.name)
            if isinstance(param, SettingOption):
                assert f"  --{str(param.name).replace('_', '-')} " in told, name


def test_variables_without_an_option_are_listed(run: Run) -> None:
    for name in WITH_SETTINGS:
        part = shown(run, name).partition("\nEnvironment variables without an option:\n")[2]
        for one in Settings.origins.values():
            for variable in one.env:
                assert bool(re.search(rf" {variable}\b", part)) is (not one.flag), (name, variable)
        assert layout.FROM_A_FILE in " ".join(part.split()), name


def test_a_value_is_called_by_a_word_only_for_settings_that_exist() -> None:
    assert _METAVARS.keys() <= Settings.origins.keys()


def test_a_command_has_one_or_two_examples_which_it_takes(run: Run) -> None:
    for name, command in COMMANDS.items():
        text, examples = shown(run, name), layout.examples_of(command)
        assert 1 <= len(examples) <= 2, name
        assert [f"\n  {example}\n" for example in examples if f"\n  {example}\n" not in text] == [], name
        ours = [
            shlex.split(example.partition(" <")[0]) for example in examples if "klearstack-vault " in example
        ]
        assert ours, name
        for program, called, *argv in ours:
            assert (program, called) == ("klearstack-vault", name), name
            command.make_context(name, argv, parent=CONTEXT)


def test_the_help_of_all_has_examples_too(run: Run) -> None:
    text = shown(run)
    for example in layout.EXAMPLES:
        assert f"\n  {example}\n" in text
        _, name, *_ = example.split()
        assert name in COMMANDS


def test_the_exit_codes_are_described_where_the_project_is(run: Run) -> None:
    urls = tomllib.loads(read("pyproject.toml"))["project"]["urls"]
    assert urls["Documentation"] == layout.DOCUMENTATION
    for argv in ((), ("get",)):
        assert shown(run, *argv).endswith(f"\nExit codes:\n  {layout.DOCUMENTATION}/errors.md\n")
    assert "# Exit codes" in read("docs/errors.md")


# man pages


def rendered(page: Path) -> str:
    """The page as a terminal of 80 columns shows it, without its fonts; its source where no `groff` is."""
    if not (groff := shutil.which("groff")):
        return page.read_text(encoding="utf-8").replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    command = [groff, "-man", "-Tascii", "-ww", "-rLL=78n", "-P-c", "-P-b", "-P-o", "-P-u", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    return done.stdout


def test_a_man_page_shows_each_option_variable_and_example() -> None:
    for page in MANUAL:
        name = page.stem.removeprefix("klearstack-vault").removeprefix("-")
        command: click.Command = COMMANDS[name] if name else cli.cli
        text = rendered(page)
        for head in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
            assert re.search(rf"^(\.SH )?{head}$", text, re.MULTILINE), (page, head)
        ctx = click.Context(command, info_name=name, parent=CONTEXT)
        for options in layout.groups(command, ctx).values():
            assert [one.opts for one in options if not all(name in text for name in one.opts)] == [], page
        for variables, _ in layout.variables(command):
            assert variables in text, (page, variables)
        assert layout.examples_of(command)[0] in text, page


def test_there_is_a_man_page_for_each_command() -> None:
    names = {"klearstack-vault", *(f"klearstack-vault-{name}" for name in COMMANDS)}
    assert {page.stem for page in MANUAL} == names
    head = rendered(ROOT / "docs" / "man" / "klearstack-vault.1")
    assert all(f"{name}(1)" in head for name in names - {"klearstack-vault"})


def test_the_wheel_installs_the_man_pages_where_man_looks() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["shared-data"] == {"docs/man": "share/man/man1"}
