"""`delete`: delete what is stored, for good."""

import logging
import sys
from contextlib import AbstractContextManager
from os import EX_OK
from typing import Any

import click

from vault_plugin.bulk.deletion import Deletion, Plan, planned
from vault_plugin.bulk.stock import looked
from vault_plugin.commands.failed import PARTIAL
from vault_plugin.commands.options import (
    Command,
    identities,
    leave_stdin,
    log_to_stderr,
    option,
    paths,
    print_out,
    settings_options,
    verbose_option,
)
from vault_plugin.commands.progress import Progress
from vault_plugin.commands.stored import (
    MANIFEST_ARGUMENT,
    Chosen,
    below_prefix,
    limits,
    of_identity,
    of_manifest,
)
from vault_plugin.errors import UsageError
from vault_plugin.output.streams import require_output
from vault_plugin.timing.deadline import Deadline

_log = logging.getLogger(__name__)


@click.command(
    cls=Command,
    short_help="Delete stored tokens.",
    examples=(
        "klearstack-vault delete --user-id 26 --company-name Acme",
        "klearstack-vault delete --all --dry-run",
    ),
)
@MANIFEST_ARGUMENT
@option("--all", "everything", group="Identity", is_flag=True, help="Delete all tokens below the prefix.")
@option("--dry-run", group="Output", is_flag=True, help="List what would be deleted, and delete nothing.")
@option("--yes", group="Output", is_flag=True, help="Do not ask for a confirmation.")
@verbose_option
@limits
@settings_options("ca_cert", "min_ttl", "deadline", "on_vault_error", "on_user_mismatch")
def delete(
    *,
    manifest: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    verbose: int,
    concurrency: int,
    deadline: Deadline | None,
    **flags: Any,
) -> int:
    """Delete the stored tokens of one identity, of the identities of MANIFEST, or all of them (--all).

    All versions and the metadata are deleted, under the lock of each identity. Secrets that klearstack-vault does not manage
    are left alone. The tokens themselves stay valid until they expire.
    """
    handler = log_to_stderr(verbose, repeat=False)
    require_output()
    leave_stdin(flags)
    asks = not (yes or dry_run)
    if asks and not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "Without a terminal to confirm on, nothing is deleted.", hint="Pass --yes, or --dry-run."
        )
    how = {"concurrency": concurrency, "deadline": deadline}
    with _chosen(manifest, flags, everything=everything, **how) as stock:
        plan = planned(looked(stock.sites, stock.parallel, thorough=True), stock.targets)
        what = f"{paths(len(plan.paths))} of {identities(len(plan.places))}"
        if plan.unmanaged and not everything:
            _log.warning(
                "%s left alone: klearstack-vault does not manage what is there", paths(plan.unmanaged)
            )
        if dry_run:
            print_out("".join(f"would delete {path}\n" for path in plan.paths) + f"{what} would be deleted\n")
            return EX_OK
        if plan.paths and asks:
            places = (f"{one.mount}/{one.prefix} at {one.address}" for one in stock.targets.inventories)
            _confirm(f"Delete {what} in {', '.join(places)}?")
        handler.progress = Progress(len(plan.found))
        return _delete(plan, stock, handler.progress)


def _chosen(
    manifest: str | None, flags: dict[str, Any], *, everything: bool, **how: Any
) -> AbstractContextManager[Chosen]:
    """Choose what is meant. Raises UsageError if that is more than one of them, SettingsError if it is none."""
    if (manifest is not None) + everything + (flags["user_id"] is not None) > 1:
        raise UsageError("Only one of --user-id, --all and a manifest can be given.")
    if everything and flags["company_name"] is not None:  # a variable holds for other commands, too
        raise UsageError(
            "--company-name does not limit --all, which deletes the tokens of all companies.",
            hint="Omit one of them; with --user-id, --company-name names one identity.",
        )
    if manifest is not None:
        return of_manifest(manifest, flags, flags["company_name"], **how)
    if everything:
        return below_prefix(flags, **how)
    return of_identity(flags, **how)


def _confirm(question: str) -> None:
    """Ask on the terminal. Raises UsageError for any answer but yes."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("Nothing was deleted.")


def _delete(plan: Plan, stock: Chosen, progress: Progress) -> int:
    """Delete what is planned, and say what was; the exit code."""
    run = Deletion()
    try:
        run.run(plan, stock.parallel, progress.step)
    finally:
        progress.end()
        print_out(f"{paths(run.paths)} of {identities(len(run.places))} deleted\n")
        alone = len(plan.found) == 1
        for message, count in run.failures.items() if not alone else ():
            click.echo(f"klearstack-vault: {identities(count)} failed: {message}", err=True)
    if run.last is not None and alone:
        raise run.last
    return PARTIAL if run.failures else EX_OK
