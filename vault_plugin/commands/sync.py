"""`sync`: make every token of a manifest good."""

import json
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import EX_OK
from typing import Any

import click

from vault_plugin.bulk.report import SyncResult
from vault_plugin.bulk.sync import Sync
from vault_plugin.bulk.targets import connect_all
from vault_plugin.commands.manifests import DURATION, manifest_options, opened_manifest
from vault_plugin.commands.options import identities, log_to_stderr, print_out, settings_options
from vault_plugin.commands.progress import Progress
from vault_plugin.output.destination import STDOUT, Output
from vault_plugin.output.streams import require_output

CHANGED = 2  # as Terraform's -detailed-exitcode says it
PARTIAL = 5
SHOWN = 10  # kinds of failures on standard error, and lines of each; --report has all of them
_log = logging.getLogger(__name__)


@click.command()
@manifest_options
@click.option(
    "--stop-after",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Stop when that many in a row have failed; 0: never.",
)
@click.option("--deadline", type=DURATION, help="For the whole run.  [default: none]")
@click.option("--check", is_flag=True, help="Only read, and say what would be minted.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 2 if a token was, or would be, minted or copied."
)
@click.option(
    "--report",
    metavar="FILE",
    help="Write a line of JSON for each identity to a new file (mode 0600); `-` is standard output.",
)
@click.option("-v", "--verbose", count=True, help="Log each step to stderr; -vv each HTTP exchange, too.")
@settings_options("user_id", "company_name", "deadline", "on_vault_error")
def sync(
    *,
    concurrency: int,
    rate: float | None,
    stop_after: int,
    deadline: float | None,
    check: bool,
    detailed_exitcode: bool,
    report: str | None,
    verbose: int,
    **options: Any,
) -> int:
    """Make every token of a manifest good in Vault: one read for a good one, a mint for any other.

    MANIFEST is YAML, JSON Lines or CSV; `-` is standard input. Run it again after a failure: it does what is left.
    """
    handler = log_to_stderr(verbose, repeat=False)
    require_output()
    with ExitStack() as stack:
        manifest = stack.enter_context(opened_manifest(options))
        destination = None if report is None else Output(report)
        handler.progress = Progress(manifest.count)
        tell = stack.enter_context(_telling(destination, handler.progress))
        with connect_all(manifest.targets) as targets:
            run = Sync(
                targets,
                tell,
                concurrency=concurrency,
                rate=rate,
                stop_after=stop_after,
                deadline=deadline,
                check=check,
            )
            with _stopped_by_signals(run) as caught:
                run.run(manifest.entries())
    if run.outage is not None and run.waited:
        click.echo(f"klearstack-vault: {identities(run.waited)} failed: {run.outage.line}", err=True)
    left = manifest.count - run.counts.total()
    summary = _summary(run, manifest.count, left)
    if destination is not None and destination.descriptor == STDOUT:
        click.echo(summary, nl=False, err=True)
    else:
        print_out(summary)
    if caught and left + run.counts["failed"]:
        if caught[0] == signal.SIGINT:
            raise KeyboardInterrupt
        return 128 + caught[0]
    if left or run.counts["failed"]:
        return PARTIAL
    return CHANGED if detailed_exitcode and run.counts.total() > run.counts["fresh"] else EX_OK


class _Failures:
    """What failed, by what is said of it: a line for each kind, however often it occurred."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}  # of the manifest, the first ones of each kind
        self._others = 0

    def add(self, error: str, line: int) -> None:
        """One more."""
        if error not in self._lines and len(self._lines) == SHOWN:
            self._others += 1
            return
        self._counts[error] += 1
        lines = self._lines.setdefault(error, [])
        if len(lines) < SHOWN:
            lines.append(line)

    def tell(self) -> None:
        """Say so on standard error."""
        for error, lines in self._lines.items():
            where, count = ", ".join(map(str, sorted(lines))), self._counts[error]
            if count == 1:
                where = f"line {where}"
            else:
                more = f" and {count - len(lines):,} more" if count > len(lines) else ""
                where = f"{identities(count)} failed (lines {where}{more})"
            click.echo(f"klearstack-vault: {where}: {error}", err=True)
        if self._others:
            others = identities(self._others)
            click.echo(f"klearstack-vault: {others} failed in other ways: --report lists all.", err=True)


@contextmanager
def _telling(report: Output | None, progress: Progress) -> Iterator[Callable[[SyncResult], None]]:
    """What hears of each identity: the report, the line of progress, and at the end whoever reads of the failures."""
    failures = _Failures()
    with ExitStack() as stack:
        stack.callback(failures.tell)
        write = None if report is None else stack.enter_context(report.lines())
        stack.callback(progress.end)

        def tell(done: SyncResult) -> None:
            if write is not None:
                write(json.dumps(done.describe()).encode() + b"\n")
            if done.error is not None and not done.outage:
                failures.add(done.error.line, done.entry.line)
                _log.info("line %d: %s", done.entry.line, done.error.line)
            progress.step()

        yield tell


@contextmanager
def _stopped_by_signals(run: Sync) -> Iterator[list[int]]:
    """The first of these signals stops the run, the second this process; what came."""
    caught: list[int] = []
    watched = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: object) -> None:
        caught.append(number)
        run.stop(signal.Signals(number).name)
        for one in watched:
            signal.signal(one, signal.SIG_DFL)

    before = [signal.signal(number, stop) for number in watched]
    try:
        yield caught
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)


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
