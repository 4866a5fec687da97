"""`exec`: run a command with a token in its environment."""

from typing import NoReturn

import click

from vault_plugin import process as runner
from vault_plugin.commands.options import (
    KINDS,
    Command,
    files,
    leave_stdin,
    log_to_stderr,
    option,
    settings_options,
    token_option,
    verbose_option,
)
from vault_plugin.settings import Settings


@click.command(
    "exec",
    cls=Command,
    # What follows the command's name are its own options.
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command with a token.",
    examples=(
        "klearstack-vault exec -- ./upload.sh",
        "klearstack-vault exec --as-file -- ./upload.sh",
    ),
)
@click.argument(
    "command",
    metavar="-- COMMAND...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=files,
)
@token_option
@option(
    "--env",
    "variable",
    group="Output",
    metavar="NAME",
    help="Environment variable that holds the token.  [default: KLEARSTACK_ACCESS_TOKEN]",
)
@option(
    "--as-file",
    group="Output",
    is_flag=True,
    help="Write the token to a file (mode 0600) that is deleted when the command ends; the variable "
    "(KLEARSTACK_ACCESS_TOKEN_FILE) holds its path. The token is not renewed: it is valid until "
    "KLEARSTACK_TOKEN_EXPIRATION. For commands that run longer, use `watch`.",
)
@option("--pristine", group="Output", is_flag=True, help="Pass only the token's variables to the command.")
@verbose_option
@settings_options()
def exec_(
    command: tuple[str, ...],
    wanted: str,
    variable: str | None,
    as_file: bool,
    pristine: bool,
    verbose: int,
    **flags: str | bool | None,
) -> NoReturn:
    """Run a command with a token in its environment.

    KLEARSTACK_ACCESS_TOKEN holds the token, KLEARSTACK_TOKEN_EXPIRATION the time when it expires (RFC 3339). Vault
    credentials, user id and company name are removed from the environment.

    The exit code is the command's; 127 if the command is not found, 126 if it cannot be run, 128 + n if signal n
    ended it.
    """
    log_to_stderr(verbose)
    leave_stdin(flags)
    settings = Settings.from_env(**flags)
    runner.run(command, settings, KINDS[wanted], variable=variable, as_file=as_file, pristine=pristine)


@click.command(hidden=True, context_settings={"allow_interspersed_args": False})
@click.argument("descriptor", type=int)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def supervise(descriptor: int, command: tuple[str, ...]) -> int:
    """Run as the process that `exec --as-file` becomes while its command runs."""
    return runner.supervise(descriptor, command)
