"""The help of a command: options in groups, variables that have no option, examples, and where the exit codes are described.

The man pages are made from the same parts. Groups and examples are attributes of the classes in options.py.
"""

import click

from vault_plugin.settings import Settings

DOCUMENTATION = "https://github.com/klearstack/klearstack-vault/tree/main/docs"  # of pyproject.toml
GROUPS = (
    *("Manifest", "Identity", "Token", "Output", "KlearStack endpoint"),
    *("Vault connection", "Vault login", "Vault storage", "Limits"),
)
EXAMPLES = ("klearstack-vault get --user-id 26 --company-name Acme", "klearstack-vault get --help")
FROM_A_FILE = "Instead of a variable NAME, NAME_FILE can name a file that holds its value."


def groups(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """The options by group, in the order in which they are shown."""
    found: dict[str, list[click.Option]] = {group: [] for group in GROUPS}
    others = []
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and (group := getattr(param, "group", "")):
            found[group].append(param)
        elif isinstance(param, click.Option):
            others.append(param)
    named = {group: options for group, options in found.items() if options}
    return named | {"General" if named else "Options": others}


def variables(command: click.Command) -> list[tuple[str, str]]:
    """Names and help of the environment variables that the command reads and that have no option."""
    if not any(param.name == "vault_addr" for param in command.params):
        return []  # It contacts no server, or reads its settings elsewhere.
    return [(", ".join(one.env), one.help) for one in Settings.origins.values() if not one.flag]


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options, a section for each group."""
    for group, options in groups(command, ctx).items():
        records = [option.get_help_record(ctx) for option in options]
        with formatter.section(group):
            formatter.write_dl([record for record in records if record is not None])


def write_end(command: click.Command, formatter: click.HelpFormatter) -> None:
    """Write what follows the options."""
    if found := variables(command):
        with formatter.section("Environment variables without an option"):
            formatter.write_dl(found)
            formatter.write_text(FROM_A_FILE)
    with formatter.section("Examples"):
        for example in examples_of(command):
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")
    with formatter.section("Exit codes"):
        formatter.write_text(f"{DOCUMENTATION}/errors.md")


def examples_of(command: click.Command) -> tuple[str, ...]:
    """Command lines that use the command; EXAMPLES for `klearstack-vault` itself."""
    return getattr(command, "examples", EXAMPLES)
