"""`sync`: ensure that every identity of a manifest has a valid token in Vault."""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import EX_OK
from typing import Any

import click

from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.report import SyncResult
from vault_plugin.bulk.sync import Sync
from vault_plugin.bulk.targets import connect_all
from vault_plugin.commands.failed import PARTIAL, Failures
from vault_plugin.commands.manifests import DEADLINE, manifest_options, opened_manifest
from vault_plugin.commands.options import (
    Command,
    files,
    identities,
    log_to_stderr,
    option,
    print_out,
    settings_options,
    verbose_option,
    wrap_ttl_option,
)
from vault_plugin.commands.progress import Progress
from vault_plugin.commands.pruning import PRUNE, YES, Pruning
from vault_plugin.errors import UsageError
from vault_plugin.output.destination import STDOUT, Output
from vault_plugin.output.streams import require_output
from vault_plugin.signals import STOP, handled

CHANGED = 2  # as of Terraform's -detailed-exitcode
_log = logging.getLogger(__name__)
# Options that are arguments of Sync.
_HOW = ("concurrency", "rate", "stop_after", "deadline", "check", "renew", "wrap_ttl")


@click.command(
    cls=Command,
    short_help="Ensure every identity has a valid token.",
    examples=(
        "klearstack-vault sync identities.yaml",
        "klearstack-vault sync --check --detailed-exitcode identities.csv",
    ),
)
@manifest_options
@PRUNE
@YES
@option("--renew", group="Token", is_flag=True, help="Mint a new token for every identity.")
@option(
    "--stop-after",
    group="Limits",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Stop after N consecutive failures; 0 for no limit.",
)
@DEADLINE
@option(
    "--check", group="Output", is_flag=True, help="Report what would be minted, without changing anything."
)
@option(
    "--detailed-exitcode",
    group="Output",
    is_flag=True,
    help="Exit with 2 if a token was, or would be, minted, copied or pruned.",
)
@option(
    "--report",
    group="Output",
    metavar="FILE",
    shell_complete=files,
    help="Write a line of JSON for each identity to a new file (mode 0600); `-` is standard output.",
)
@wrap_ttl_option("Have --report hold a single-use wrapping token of each access token, valid this long.")
@verbose_option
@settings_options("user_id", "company_name", "deadline", "on_vault_error")
def sync(
    *, prune: bool, yes: bool, detailed_exitcode: bool, report: str | None, verbose: int, **options: Any
) -> int:
    """Ensure that every identity has a valid token in Vault.

    MANIFEST is YAML, JSON Lines or CSV; `-` is standard input. A token that is still valid costs one read. After a
    failure, run it again: it processes the remaining identities.
    """
    handler = log_to_stderr(verbose, repeat=False)
    require_output()
    how = {name: options.pop(name) for name in _HOW}
    _check_wrapping(how["wrap_ttl"], report, check=how["check"])
    if yes and not prune:
        raise UsageError("--yes applies to --prune only.")
    destination = None if report is None else Output(report, secret=how["wrap_ttl"] is not None)
    pruning: Pruning | None = None
    with (
        opened_manifest(options, how["deadline"]) as manifest,
        connect_all(manifest.targets, manifest.name) as targets,
    ):
        if prune:
            parallel = Parallel(targets, concurrency=how["concurrency"], deadline=how["deadline"])
            pruning = Pruning(manifest, targets, parallel, check=how["check"], yes=yes)
        handler.progress = Progress(manifest.count)
        with _reporting(destination, handler.progress) as record:
            run = Sync(targets, record, **how)
            with _stopped_by_signals(run) as caught:
                run.run(manifest.entries())
        if pruning:
            pruning.run(run.stopped_by)
    to_stderr = destination is not None and destination.descriptor == STDOUT
    _print_result(run, manifest.count, to_stderr=to_stderr)
    code = _exit_code(run, manifest.count, caught, detailed=detailed_exitcode)
    if pruning:
        pruning.report(to_stderr=to_stderr)
        return pruning.exit_code(code, CHANGED if detailed_exitcode else EX_OK)
    return code


def _check_wrapping(wrap_ttl: float | None, report: str | None, *, check: bool) -> None:
    """Raise UsageError if there is no place for the wrapping tokens, or nothing is to be written to Vault."""
    if wrap_ttl is not None and report is None:
        raise UsageError("--wrap-ttl is for the tokens in a report.", hint="Name its file with --report.")
    if wrap_ttl is not None and check:
        raise UsageError("--check changes nothing, and makes no wrapping tokens.", hint="Omit --wrap-ttl.")


@contextmanager
def _reporting(report: Output | None, progress: Progress) -> Iterator[Callable[[SyncResult], None]]:
    """Yield what records each result: in the report, in the progress line, and in the list of failures at the end."""
    failures = Failures()
    with ExitStack() as stack:
        stack.callback(failures.report)
        write = None if report is None else stack.enter_context(report.lines())
        stack.callback(progress.end)

        def record(result: SyncResult) -> None:
            if write is not None:
                write(json.dumps(result.describe()).encode() + b"\n")
            if result.error is not None and not result.outage:
                failures.add(result.error.line, result.entry.line)
                _log.info("line %d: %s", result.entry.line, result.error.line)
            progress.step()

        yield record


@contextmanager
def _stopped_by_signals(run: Sync) -> Iterator[list[int]]:
    """Have the first signal of STOP stop the run, and the second one end this process; yields those received."""
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        run.stop(signal.Signals(number).name)
        for one in STOP:
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, signal.SIG_DFL)

    with handled(STOP, stop):
        yield caught


def _left(run: Sync, count: int) -> int:
    """The number of identities that were not tried."""
    return count - run.counts.total()


def _print_result(run: Sync, count: int, *, to_stderr: bool) -> None:
    if run.outage is not None and run.waited:
        click.echo(f"klearstack-vault: {identities(run.waited)} failed: {run.outage.line}", err=True)
    summary = _summary(run, count, _left(run, count))
    if to_stderr:
        click.echo(summary, nl=False, err=True)
    else:
        print_out(summary)


def _exit_code(run: Sync, count: int, caught: list[int], *, detailed: bool) -> int:
    """The exit code. Raises KeyboardInterrupt if SIGINT ended the run early."""
    unfinished = _left(run, count) + run.counts["failed"]
    if caught and unfinished:
        if caught[0] == signal.SIGINT:
            raise KeyboardInterrupt
        return 128 + caught[0]
    if unfinished:
        return PARTIAL
    return CHANGED if detailed and run.counts.total() > run.counts["fresh"] else EX_OK


def _summary(run: Sync, count: int, left: int) -> str:
    words = {
        "fresh": "fresh",
        "minted": "minted",
        "copied": "copied",
        "would_mint": "to be minted",
        "failed": "failed",
    }
    parts = [f"{run.counts[result]:,} {word}" for result, word in words.items() if run.counts[result]]  # type: ignore[index]
    if left:
        parts.append(f"{left:,} not tried ({run.stopped_by})")
    return f"{identities(count)}: {', '.join(parts) or 'nothing to do'}\n"
