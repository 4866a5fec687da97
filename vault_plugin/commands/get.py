"""`get`: hand over a token."""

from contextlib import suppress

import click

from vault_plugin.app import connect
from vault_plugin.commands.options import KINDS, line_of_stdin, log_to_stderr, print_out, settings_options
from vault_plugin.errors import KlearstackVaultError, WriteError, internal_error
from vault_plugin.output import ci, formats
from vault_plugin.output.destination import Output
from vault_plugin.output.streams import require_output
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import known_deadline
from vault_plugin.timing.deadline import Deadline


@click.command()
@click.option(
    "--token", "wanted", type=click.Choice(list(KINDS)), default="access", show_default=True, help="Which."
)
@click.option("--renew", is_flag=True, help="Mint, even if the stored one is still good.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(formats.FORMATS)),
    default="raw",
    show_default=True,
    help="How to print.",
)
@click.option(
    "--output",
    metavar="FILE",
    help="Write to a file (mode 0600, replaced atomically), device or FIFO; `-` is standard output.",
)
@click.option("-v", "--verbose", count=True, help="Log each step to stderr; -vv each HTTP exchange, too.")
@settings_options()
def get(
    wanted: str, renew: bool, form: str, output: str | None, verbose: int, **flags: str | bool | None
) -> None:
    """Hand over a token: from Vault while it is good, else freshly minted and stored."""
    log_to_stderr(verbose)
    output = None if output == "-" else output
    try:
        if output is None:
            require_output()
        formats.check(form, KINDS[wanted])
        for name in ("user_id", "company_name"):  # in this order, a line each
            if flags[name] == "-":
                flags[name] = line_of_stdin(known_deadline(flags["deadline"]))
        ci.check(form, output)
        if form == "github":
            flags["on_vault_error"] = "fail"  # there is no handing on of a token that is not in Vault
        settings = Settings.from_env(**flags)
        destination = None if output is None else Output(output)
        deadline = Deadline(settings.deadline)
        with connect(settings) as broker:
            grant = broker.get(settings.identity(), KINDS[wanted], renew=renew)
        text = formats.render(grant, form)
        if destination is not None:
            destination.write(text, deadline)
            return
    except Exception as exc:
        if form == "json":
            error = exc if isinstance(exc, KlearstackVaultError) else internal_error(exc)
            with suppress(WriteError):  # the first failure tells the exit code
                print_out(formats.render_error(error))
        raise
    print_out(text)
    if form == "github":
        ci.hand_on(grant)  # after the masks
