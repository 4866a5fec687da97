"""The command line as a whole. Only `main` turns errors into text and exit codes."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from vault_plugin.errors import KlearstackVaultError, UsageError, internal_error
from vault_plugin.output import streams
from vault_plugin.wording import speak, speaking

# Each command's module and name. Only the one that is called is loaded: all of them take longer than a stored token does.
COMMANDS = {
    "get": "get:get",
    "exec": "exec:exec_",
    "supervise": "exec:supervise",
    "sync": "sync:sync",
    "watch": "watch:watch",
    "helper": "helper:helper",
    "terraform": "terraform:terraform",
    "demo": "servers:demo",
    "simulate": "servers:simulate",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  as above
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(f"vault_plugin.commands.{module}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Each version of click does this in a way of its own: on another stream, with another exit code.
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from vault_plugin.commands import usage  # noqa: PLC0415  no other command's business

        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise usage.no_command(args[0], COMMANDS)
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:  # as it is in a shell's completion
            speak(usage.words_of(command))
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # click would print an empty line, all that Terraform shows of us


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="klearstack-vault", message="%(prog)s %(version)s")
def cli() -> None:
    """KlearStack API tokens, kept in Vault until they expire and handed to the tool that asks."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit by the codes of errors.py; 130 after Ctrl-C."""
    if argv is None:
        _start()
    with speaking():
        _main(argv)


def _main(argv: Sequence[str] | None) -> NoReturn:
    try:
        sys.exit(cli.main(argv, prog_name="klearstack-vault", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        click.echo("klearstack-vault: Interrupted.", err=True)
        sys.exit(130)
    except Exception as exc:  # noqa: BLE001  a traceback might show a secret, and a token's user can do nothing with it
        _fail(_error(exc))


def bazel_helper() -> NoReturn:
    """For Bazel's --credential_helper, which is a path without arguments."""
    _start()
    main(["helper", "bazel", *sys.argv[1:]])


def git_helper() -> NoReturn:
    """For git's credential.helper, which is the end of a command's name."""
    _start()
    main(["helper", "git", *sys.argv[1:]])


def _start() -> None:
    """What comes first in a process of our own."""
    _speak_utf8()
    streams.install()


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale has another encoding, in which a name would become another one.

    Afterwards arguments, environment, standard input and file names are all the bytes that they were.
    """
    if sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:  # noqa: SLF001  CPython documents it
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  no shell is wanted


def _error(exc: Exception) -> KlearstackVaultError:
    """What an exception is to the user. One that is raised here would show that exception, with what was typed."""
    try:
        if isinstance(exc, KlearstackVaultError):
            return exc
        if isinstance(exc, click.ClickException):
            from vault_plugin.commands.usage import usage_error  # noqa: PLC0415  as above

            return usage_error(exc)
    except Exception as another:  # noqa: BLE001  as click's next version may cause
        return internal_error(another)
    return internal_error(exc)


def _fail(exc: KlearstackVaultError) -> NoReturn:
    click.echo(f"klearstack-vault: {exc.line}", err=True)
    sys.exit(exc.exit_code)
