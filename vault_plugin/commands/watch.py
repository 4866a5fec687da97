"""`watch`: keep every token of a manifest good for as long as the process lives."""

import grp
import pwd
import signal
from contextlib import ExitStack
from functools import partial
from os import EX_OK
from typing import Any

import click

from vault_plugin.bulk import service
from vault_plugin.bulk.hook import Hook
from vault_plugin.bulk.stats import Stats
from vault_plugin.bulk.token_files import TokenFiles
from vault_plugin.bulk.watch import Watcher
from vault_plugin.commands.manifests import manifest_options, opened_manifest
from vault_plugin.commands.options import identities, log_to_stderr, settings_options
from vault_plugin.errors import UsageError
from vault_plugin.output.private_files import Rights


class _Mode(click.ParamType):  # type: ignore[type-arg]  # as in manifests.py
    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            mode = int(value, 8) if isinstance(value, str) else int(value)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777 or mode & 0o007:
            self.fail("is no octal mode that keeps others out", param, ctx)
        return mode


@click.command()
@manifest_options
@click.option(
    "--mode", type=_Mode(), default="0600", show_default=True, help="Of the token files; nothing for others."
)
@click.option("--owner", metavar="USER[:GROUP]", help="Of the token files.  [default: who runs this]")
@click.option(
    "--on-change",
    metavar="COMMAND",
    help="Run it (no shell) when token files have changed; one run at a time.",
)
@click.option(
    "--metrics", metavar="[HOST:]PORT", help="Answer Prometheus there; HOST is 127.0.0.1 unless named."
)
@click.option("-v", "--verbose", count=True, help="Log each step to stderr; -vv each HTTP exchange, too.")
@settings_options("user_id", "company_name", "on_vault_error")
def watch(
    *,
    concurrency: int,
    rate: float | None,
    mode: int,
    owner: str | None,
    on_change: str | None,
    metrics: str | None,
    verbose: int,
    **options: Any,
) -> int:
    """Keep every token of a manifest good: renewed when two thirds of its life are over, in Vault and in its `file`.

    SIGHUP reads the manifest anew, SIGTERM ends it. Under systemd it is a service of Type=notify.
    """
    log_to_stderr(verbose, repeat=False)
    if options["manifest"] == "-":
        raise UsageError("A manifest on standard input cannot be read anew.", hint="Name a file.")
    stats = Stats()
    with ExitStack() as stack:
        hook = None if on_change is None else stack.enter_context(Hook(on_change))
        watcher_of = partial(
            Watcher,
            stats=stats,
            concurrency=concurrency,
            rate=rate,
            files=TokenFiles(Rights(mode, _owner(owner)), hook),
        )
        where = ""
        if metrics is not None:
            from vault_plugin.bulk.metrics import served  # noqa: PLC0415  whoever wants none needs not load its server

            host, port = _address(metrics)
            port = stack.enter_context(served(stats, host, port))
            where = f"; metrics are at http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

        def load() -> service.Plan:
            with opened_manifest(options) as manifest:
                entries = list(manifest.entries())
            click.echo(f"klearstack-vault: keeping the tokens of {identities(len(entries))}{where}", err=True)
            return service.Plan(manifest.targets, entries)

        ended = service.run(load, watcher_of)
    if ended == signal.SIGINT:
        raise KeyboardInterrupt
    return EX_OK if ended == signal.SIGTERM else 128 + ended


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    user, _, group = text.partition(":")
    try:
        return (
            int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid,
            -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid,
        )
    except KeyError:
        raise UsageError("--owner takes USER or USER:GROUP, by names or numbers that there are.") from None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and int(port) <= 65535):
        raise UsageError("--metrics takes PORT or HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)
