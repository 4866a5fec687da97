"""Man pages, made from the declarations that `--help` is made from: one for each command, one for all of them.

They are kept in docs/man, which the wheel installs to share/man/man1. click-man, a library for that, knows neither groups of
options nor examples, variables and exit codes.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping

import click

from vault_plugin import cli
from vault_plugin.commands import help as layout

NAME = "klearstack-vault"


def man_pages(
    commands: Mapping[str, click.Command], exit_codes: Mapping[int, Iterable[str]]
) -> dict[str, str]:
    """The pages by file name."""
    context = click.Context(cli.cli, info_name=NAME, **cli.cli.context_settings)
    pages = {f"{NAME}.1": _page(_lines(context, commands, exit_codes))}
    for name, command in commands.items():
        own = click.Context(command, info_name=name, parent=context)
        pages[f"{NAME}-{name}.1"] = _page(_lines(own))
    return pages


def _page(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _lines(
    ctx: click.Context,
    commands: Mapping[str, click.Command] | None = None,
    exit_codes: Mapping[int, Iterable[str]] | None = None,
) -> Iterator[str]:
    command, name = ctx.command, ctx.command_path.replace(" ", "-")
    yield f'.TH "{name.upper()}" "1" "" "{NAME}" "User Commands"'
    yield from (".ad l", ".nh")  # neither justified nor hyphenated: a name may be copied
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(command.get_short_help_str(80).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(ctx.command_path)}"
    yield _text(" ".join(command.collect_usage_pieces(ctx)))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        yield from [".PP"] * (number > 0)
        yield _text(paragraph)
    if commands:
        yield ".SH COMMANDS"
        for one, own in commands.items():
            yield from _item(f"{NAME}-{one}(1)", own.get_short_help_str(80))
    yield ".SH OPTIONS"
    groups = layout.groups(command, ctx)
    for group, options in groups.items():
        yield from [f'.SS "{_text(group)}"'] * (len(groups) > 1)
        for option in options:
            yield from _item(*option.get_help_record(ctx) or ("", ""))
    if variables := layout.variables(command):
        yield ".SH ENVIRONMENT"
        yield "The variables of options stand with the options. These have no option:"
        for names, about in variables:
            yield from _item(names, about)
        yield ".PP"
        yield _text(layout.FROM_A_FILE)
    yield ".SH EXIT STATUS"
    if exit_codes is None:
        yield f"See {_text(NAME)}(1)."
    for code, meanings in (exit_codes or {}).items():
        yield from _item(str(code), "; ".join(meanings))
    yield ".SH EXAMPLES"
    yield from (".nf", *map(_text, layout.examples_of(command)), ".fi")
    yield ".SH SEE ALSO"
    yield _text(f"{NAME}(1), {layout.DOCUMENTATION}" if ctx.parent else layout.DOCUMENTATION)


def _item(what: str, about: str) -> tuple[str, str, str]:
    return ".TP", f"\\fB{_text(what)}\\fR", _text(about)


def _text(text: str) -> str:
    """The text in one line, with nothing that roff takes for a command of its own."""
    text = re.sub(r"\s+", " ", text).replace("\\", "\\e").replace("-", "\\-")
    for sign, name in (("'", "\\(aq"), ("^", "\\(ha"), ("~", "\\(ti"), ('"', "\\(dq")):
        text = text.replace(sign, name)
    text = re.sub("`([^`]+)`", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text.startswith(".") else text
