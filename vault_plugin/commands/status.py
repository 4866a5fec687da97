"""`status`: show which tokens are stored, without the tokens."""

import os
import shutil
import sys
from itertools import chain
from os import EX_OK
from typing import Any

import click

from vault_plugin.broker.inventory import Inventory
from vault_plugin.bulk.stock import looked
from vault_plugin.commands.options import (
    DURATION,
    Command,
    log_to_stderr,
    option,
    print_out,
    settings_options,
    verbose_option,
)
from vault_plugin.commands.progress import Progress
from vault_plugin.commands.stored import MANIFEST_ARGUMENT, Chosen, below_prefix, limits, of_manifest
from vault_plugin.errors import UsageError
from vault_plugin.output.stock import in_order, render_json, render_table, state_of, summary
from vault_plugin.output.streams import require_output
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.place import Holding

EXPIRING = 3
LACKING = 4
NO_ENDPOINT = "https://endpoint.invalid"  # Nothing is requested there, and the settings require an address.


@click.command(
    cls=Command,
    short_help="Show which tokens are stored.",
    examples=(
        "klearstack-vault status",
        "klearstack-vault status --exit-code --warn 10m identities.yaml",
    ),
)
@MANIFEST_ARGUMENT
@option(
    "--company-name",
    group="Manifest",
    metavar="TEXT",
    help="Default company name of the manifest.  [env: KLEARSTACK_COMPANY_NAME]",
)
@option(
    "--format",
    "form",
    group="Output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@option(
    "--warn",
    group="Output",
    type=DURATION,
    default="5m",
    show_default=True,
    help="A token is about to expire if it has at most this lifetime left.",
)
@option(
    "--exit-code",
    "detailed",
    group="Output",
    is_flag=True,
    help="Exit with 4 if a token is missing or has expired, else with 3 if one is about to expire.",
)
@verbose_option
@limits
@settings_options(
    *("user_id", "company_name", "url", "ca_cert", "allow_plain_http"),
    *("min_ttl", "deadline", "on_vault_error"),
)
def status(
    *,
    manifest: str | None,
    company_name: str | None,
    form: str,
    warn: float,
    detailed: bool,
    verbose: int,
    concurrency: int,
    deadline: Deadline | None,
    **flags: Any,
) -> int:
    """Show which tokens are stored below the prefix, or for the identities of MANIFEST, without the tokens.

    Nothing is minted or written. Each line shows the remaining lifetime, the version in Vault, when the token was minted and
    which manifest it belongs to. What is missing or has expired comes first, then what expires first.
    """
    handler = log_to_stderr(verbose, repeat=False)
    require_output()
    if manifest is None and company_name is not None:  # a variable holds for other commands, too
        raise UsageError(
            "--company-name is for a manifest: without one, the tokens of all companies are shown."
        )
    flags["url"] = NO_ENDPOINT
    how = {"concurrency": concurrency, "deadline": deadline}
    if manifest is None:
        chosen = below_prefix(flags, **how)
    else:
        chosen = of_manifest(manifest, flags, company_name, **how)
    with chosen as stock:
        handler.progress = Progress(len(stock.sites))
        holdings = _holdings(stock, handler.progress, whole=manifest is not None)
    if form == "json":
        print_out(render_json(holdings, warn))
    else:
        print_out("\n".join(_table(vault, found, warn, len(holdings)) for vault, found in holdings.items()))
    return _exit_code(list(chain(*holdings.values())), warn) if detailed else EX_OK


def _holdings(stock: Chosen, progress: Progress, *, whole: bool) -> dict[Inventory, list[Holding]]:
    """What each Vault holds; if the identities are known, also what it lacks (`whole`)."""
    found: dict[Inventory, list[Holding]] = {vault: [] for vault in stock.targets.inventories}
    try:
        for one in looked(stock.sites, stock.parallel):
            found[one.site.inventory] += one.holdings if whole else one.ours
            progress.step()
    finally:
        progress.end()
    return {vault: in_order(holdings) for vault, holdings in found.items()}


def _table(vault: Inventory, holdings: list[Holding], warn: float, vaults: int) -> str:
    """The table of one Vault of several, and a line that sums it up."""
    where = f"{vault.mount}/{vault.prefix}" + (f" at {vault.address}" if vaults > 1 else "")
    is_terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if is_terminal or os.environ.get("COLUMNS") else None
    colours = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    table = f"{render_table(holdings, warn, columns=columns, colours=colours)}\n" if holdings else ""
    return table + summary(holdings, warn, where)


def _exit_code(holdings: list[Holding], warn: float) -> int:
    """The exit code for monitoring. Where nothing is stored, everything is missing."""
    states = {state_of(one, warn) for one in holdings}
    if not states or states & {"missing", "expired", "unmanaged"}:
        return LACKING
    return EXPIRING if "expiring" in states else EX_OK
