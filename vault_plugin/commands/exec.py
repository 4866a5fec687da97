"""`exec`: run a command with a token in its environment."""

from typing import NoReturn

import click

from vault_plugin import process as runner
from vault_plugin.commands.options import KINDS, leave_stdin, log_to_stderr, settings_options
from vault_plugin.settings import Settings


@click.command("exec", context_settings={"allow_interspersed_args": False})  # later ones are the command's
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--token", "wanted", type=click.Choice(list(KINDS)), default="access", show_default=True, help="Which."
)
@click.option(
    "--env", "variable", metavar="NAME", help="The variable for it.  [default: KLEARSTACK_ACCESS_TOKEN]"
)
@click.option(
    "--as-file",
    is_flag=True,
    help="Write the token to a file (mode 0600) that lasts as long as the command; the variable "
    "(KLEARSTACK_ACCESS_TOKEN_FILE) holds its path. The token is that of the start, and is not renewed: "
    "KLEARSTACK_TOKEN_EXPIRATION says until when it is valid. For a longer time, use `watch`.",
)
@click.option("--pristine", is_flag=True, help="Nothing else goes into the command's environment.")
@click.option("-v", "--verbose", count=True, help="Log each step to stderr; -vv each HTTP exchange, too.")
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

    KLEARSTACK_ACCESS_TOKEN holds it, and KLEARSTACK_TOKEN_EXPIRATION (RFC 3339) when it expires. What we get tokens with
    (Vault logins, user id, company name) is taken out.

    The exit code is the command's; 127 if there is none of that name, 126 if it cannot be run, 128 + n if signal n
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
    """The process that `exec --as-file` becomes while its command runs."""
    return runner.supervise(descriptor, command)
