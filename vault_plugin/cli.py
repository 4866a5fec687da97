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

# Each command's module and name. Only the called one is imported: importing all takes longer than reading a token.
COMMANDS = {
    "get": "get:get",
    "exec": "exec:exec_",
    "supervise": "exec:supervise",
    "sync": "sync:sync",
    "watch": "watch:watch",
    "policy": "policy:policy",
    "doctor": "doctor:doctor",
    "status": "status:status",
    "delete": "delete:delete",
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
        # Versions of click differ here, in the stream and in the exit code.
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from vault_plugin.commands import usage  # noqa: PLC0415  --version does without it

        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise usage.no_command(args[0], COMMANDS)
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:  # it is None during completion
            speak(usage.words_of(command))
        return name, command, rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  as above
        from vault_plugin.commands import help as layout  # noqa: PLC0415  as above

        layout.write_end(self, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # click would print an empty line, which Terraform shows


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="klearstack-vault", message="%(prog)s %(version)s")
def cli() -> None:
    """Get KlearStack API tokens, stored in Vault until they expire.

    `klearstack-vault COMMAND --help` shows the options of a command.
    """


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
    except Exception as exc:  # noqa: BLE001  a traceback may show a secret
        _fail(_error(exc))


def bazel_helper() -> NoReturn:
    """Run `helper bazel`: Bazel's --credential_helper is a path without arguments."""
    _start()
    main(["helper", "bazel", *sys.argv[1:]])


def git_helper() -> NoReturn:
    """Run `helper git`: git's credential.helper is the end of a command's name."""
    _start()
    main(["helper", "git", *sys.argv[1:]])


def _start() -> None:
    """Prepare the process: locale and standard streams."""
    _speak_utf8()
    streams.install()


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale has another encoding, in which a name would change.

    Arguments, environment, standard input and file names then have the bytes that the caller gave.
    """
    if sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:  # noqa: SLF001  CPython documents it
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  without a shell


def _error(exc: Exception) -> KlearstackVaultError:
    """Make the error to show for an exception. It raises nothing: a traceback would show what was typed."""
    try:
        if isinstance(exc, KlearstackVaultError):
            return exc
        if isinstance(exc, click.ClickException):
            from vault_plugin.commands.usage import usage_error  # noqa: PLC0415  as above

            return usage_error(exc)
    except Exception as another:  # noqa: BLE001  another version of click may cause one
        return internal_error(another)
    return internal_error(exc)


def _fail(exc: KlearstackVaultError) -> NoReturn:
    click.echo(f"klearstack-vault: {exc.line}", err=True)
    sys.exit(exc.exit_code)
