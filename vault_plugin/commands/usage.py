"""Usage errors, which never quote what was typed, since it may be a token; and what a command calls settings."""

from collections.abc import Iterable

import click

from vault_plugin.commands.options import DURATION, SettingOption
from vault_plugin.errors import UsageError
from vault_plugin.settings import Settings, words
from vault_plugin.wording import Words, flag, named


def words_of(command: click.Command) -> Words:
    """What the command calls settings: by its own options, the manifest's keys, or their variables."""
    options = {str(option.name): isinstance(option, SettingOption) for option in command.params}
    names = {name for name, is_setting in options.items() if is_setting} | {"company_name"} & options.keys()
    elsewhere = {"renew": "--renew", "verbose": "-v"}
    others = {
        "help": f"`klearstack-vault {command.name} --help`",
        **{
            name: text if name in options else f"`klearstack-vault get {text}`"
            for name, text in elsewhere.items()
        },
    }
    if "manifest" in options and "user_id" not in options:
        others["user_id"] = "`user_id` in the manifest"
    return words(lambda name: flag(name) if name in names else None, others)


def usage_error(exc: click.ClickException) -> UsageError:
    """Say what is wrong with the command line, and where its help is."""
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    where = f"`{context.command_path} --help`" if context else named("help")
    return UsageError(_complaint(exc, context), hint=f"See {where}.")


def no_command(typed: str, commands: Iterable[str]) -> UsageError:
    """Make the error for a command that does not exist."""
    suggestion = _did_you_mean(typed, {name: name for name in commands})
    return UsageError(f"Unknown command.{suggestion}", hint="See `klearstack-vault --help`.")


def _complaint(exc: click.ClickException, context: click.Context | None) -> str:
    if isinstance(exc, click.NoSuchOption):
        names = {name: name for option in context.command.params for name in option.opts} if context else {}
        variables = {
            flag(name): f"the variable {one.env[-1]}"
            for name, one in Settings.origins.items()
            if not one.flag
        }
        return f"Unknown option.{_did_you_mean(exc.option_name, variables | names)}"
    if isinstance(exc, click.BadOptionUsage):
        return f"{exc.option_name} {'requires a' if 'requires' in exc.message else 'takes no'} value."
    if isinstance(exc, click.MissingParameter) and exc.param is not None:
        return f"{str(exc.param.name).upper()} is missing."
    if isinstance(exc, click.BadParameter) and exc.param is not None and exc.param.type is DURATION:
        return f"{exc.param.opts[0]} {exc.message}."  # which does not quote what was typed
    if isinstance(exc, click.BadParameter) and exc.param is not None:
        choices = getattr(exc.param.type, "choices", ())
        return f"{exc.param.opts[0]} {'must be one of ' + ', '.join(choices) if choices else 'has an invalid value'}."
    return "Too many arguments."


def _did_you_mean(typed: str, names: dict[str, str]) -> str:
    """Suggest the closest of our own names, after a space; empty if none is close."""
    from difflib import get_close_matches  # noqa: PLC0415  only a wrong command line needs it

    begun = [name for name in names if len(typed) > 3 and name.startswith(typed)]
    near = begun if len(begun) == 1 else get_close_matches(typed, names, 1)
    return f" Did you mean {names[near[0]]}?" if near else ""
