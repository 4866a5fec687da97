"""`get`: print a token."""

from contextlib import suppress
from typing import Any

import click

from vault_plugin.app import connect
from vault_plugin.broker import Broker, Grant
from vault_plugin.commands.options import (
    KINDS,
    Command,
    files,
    line_of_stdin,
    log_to_stderr,
    option,
    print_out,
    settings_options,
    token_option,
    verbose_option,
    wrap_ttl_option,
)
from vault_plugin.errors import KlearstackVaultError, WriteError, internal_error
from vault_plugin.output import ci, formats
from vault_plugin.output.destination import Output
from vault_plugin.output.streams import require_output
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import known_deadline
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.stored import WrappingToken


@click.command(
    cls=Command,
    short_help="Print a token, from Vault while it is valid.",
    examples=(
        "klearstack-vault get --user-id 26 --company-name Acme",
        "klearstack-vault get --token both --format json --output tokens.json",
    ),
)
@token_option
@option("--renew", group="Token", is_flag=True, help="Request a new token even if the one in Vault is valid.")
@option(
    "--format",
    "form",
    group="Output",
    type=click.Choice(list(formats.FORMATS)),
    default="raw",
    show_default=True,
    help="Output format.",
)
@option(
    "--output",
    group="Output",
    metavar="FILE",
    shell_complete=files,
    help="Write to a file (mode 0600, replaced atomically), device or FIFO; `-` is standard output.",
)
@wrap_ttl_option("Print a single-use wrapping token, valid this long, in place of the token.")
@verbose_option
@settings_options()
def get(
    wanted: str,
    renew: bool,
    form: str,
    output: str | None,
    wrap_ttl: float | None,
    verbose: int,
    **flags: Any,
) -> None:
    """Print a token, reusing the one in Vault while it is valid.

    Otherwise, a new token is requested from KlearStack's endpoint (minted) and stored in Vault until it expires.
    """
    log_to_stderr(verbose)
    output = None if output == "-" else output
    try:
        if output is None:
            require_output()
        formats.check(form, KINDS[wanted], wrapping=wrap_ttl is not None)
        began = _read_identity(flags)
        ci.check(form, output)
        if form == "github" or wrap_ttl is not None:  # both need a token that is in Vault
            flags["on_vault_error"] = "fail"
        settings = Settings.from_env(None, began, **flags)
        destination = None if output is None else Output(output)
        deadline = Deadline(settings.deadline)
        with connect(settings) as broker:
            grant = broker.get(settings.identity(), KINDS[wanted], renew=renew)
            wrapping = _wrapped(broker, grant, wrap_ttl, deadline)
        text = _rendered(grant, wrapping, form)
        if destination is not None:
            destination.write(text, deadline)
            return
    except Exception as exc:
        if form == "json":
            _print_error(exc)
        raise
    print_out(text)
    if form == "github":
        ci.write_step_outputs(grant, wrapping=wrapping)  # after the masks


def _wrapped(
    broker: Broker, grant: Grant, wrap_ttl: float | None, deadline: Deadline
) -> WrappingToken | None:
    return None if wrap_ttl is None else broker.wrap(grant, formats.describe(grant), wrap_ttl, deadline)


def _read_identity(flags: dict[str, str | bool | None]) -> float | None:
    """Replace each `-` by a line of standard input, in this order; return when reading began (monotonic seconds)."""
    names = [name for name in ("user_id", "company_name") if flags[name] == "-"]
    if not names:
        return None
    deadline = known_deadline(flags["deadline"])
    for name in names:
        flags[name] = line_of_stdin(deadline)
    return deadline.began


def _print_error(exc: Exception) -> None:
    error = exc if isinstance(exc, KlearstackVaultError) else internal_error(exc)
    with suppress(WriteError):  # the first failure decides the exit code
        print_out(formats.render_error(error))


def _rendered(grant: Grant, wrapping: WrappingToken | None, form: str) -> str:
    if wrapping is None:
        return formats.render(grant, form)
    from vault_plugin.output import wrapped  # noqa: PLC0415  few calls need it

    return wrapped.render(grant, wrapping, form)
