"""`watch`: keep every token of a manifest valid while the process runs."""

import grp
import pwd
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
from vault_plugin.commands.options import (
    Command,
    identities,
    log_to_stderr,
    option,
    settings_options,
    verbose_option,
)
from vault_plugin.errors import UsageError
from vault_plugin.output.private_files import Rights

_MAX_ID = 2**32 - 2  # one more is -1, which leaves the owner as it is: chown(2)


class _Mode(click.ParamType):  # type: ignore[type-arg]  # as in manifests.py
    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            mode = int(value, 8) if isinstance(value, str) else int(value)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777 or mode & 0o007:
            self.fail("is not an octal mode without permissions for others", param, ctx)
        return mode


@click.command(
    cls=Command,
    short_help="Keep every token of a manifest valid.",
    examples=(
        "klearstack-vault watch /etc/klearstack/identities.yaml",
        "klearstack-vault watch --metrics 9100 --on-change 'pkill -HUP app' m.yaml",
    ),
)
@manifest_options
@option(
    "--mode",
    group="Output",
    type=_Mode(),
    default="0600",
    show_default=True,
    help="Mode of the token files; no permissions for others.",
)
@option(
    "--owner",
    group="Output",
    metavar="USER[:GROUP]",
    help="Owner of the token files.  [default: the user that runs it]",
)
@option(
    "--on-change",
    group="Output",
    metavar="COMMAND",
    help="Command to run, without a shell, after token files have changed; one run at a time.",
)
@option(
    "--metrics",
    group="Output",
    metavar="[HOST:]PORT",
    help="Expose Prometheus metrics on this address; HOST defaults to 127.0.0.1.",
)
@verbose_option
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
    """Keep every token of a manifest valid, in Vault and in its `file`.

    Renews each token when two thirds of its lifetime have passed. SIGHUP reloads the manifest, SIGTERM ends the process.
    Under systemd, it is a service of Type=notify.
    """
    log_to_stderr(verbose, repeat=False)
    if options["manifest"] == "-":
        raise UsageError("A manifest on standard input cannot be reloaded.", hint="Name a file.")
    stats = Stats()
    with ExitStack() as stack:
        hook = None if on_change is None else stack.enter_context(Hook(on_change))
        rights = Rights(mode, _owner(owner))
        watcher_of = partial(
            Watcher,
            stats=stats,
            concurrency=concurrency,
            rate=rate,
            files=TokenFiles(rights, hook),
        )
        served = "" if metrics is None else stack.enter_context(_served(stats, metrics))
        ended = service.run(partial(_load, options, served), watcher_of)
    if ended == signal.SIGINT:
        raise KeyboardInterrupt
    return EX_OK if ended == signal.SIGTERM else 128 + ended


def _load(options: Mapping[str, Any], served: str) -> service.Plan:
    """Read the manifest; `served` is added to the message that says so."""
    with opened_manifest(options) as manifest:
        entries = list(manifest.entries())
    click.echo(f"klearstack-vault: keeping the tokens of {identities(len(entries))}{served}", err=True)
    return service.Plan(manifest.targets, entries, manifest.name)


@contextmanager
def _served(stats: Stats, address: str) -> Iterator[str]:
    """Expose metrics on that address; yields the text that says where."""
    from vault_plugin.bulk.metrics import served  # noqa: PLC0415  prometheus_client only where it is wanted

    host, port = _address(address)
    with served(stats, host, port) as listening:
        yield f"; metrics are at http://{f'[{host}]' if ':' in host else host}:{listening}/metrics"


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    user, _, group = text.partition(":")
    try:
        return (
            _id(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid,
            -1 if not group else _id(group) if group.isdecimal() else grp.getgrnam(group).gr_gid,
        )
    except (KeyError, ValueError):
        raise UsageError("--owner must be USER or USER:GROUP, names or ids that exist.") from None


def _id(text: str) -> int:
    """Raises ValueError if no user and no group can have it."""
    if (number := int(text)) > _MAX_ID:
        raise ValueError
    return number


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and len(port) < 10 and int(port) <= 65535):
        raise UsageError("--metrics must be PORT or HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)
