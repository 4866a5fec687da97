"""What the commands over a manifest share: their options, and how the manifest is read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from vault_plugin.commands.options import DURATION, files, option
from vault_plugin.errors import UsageError
from vault_plugin.manifest.formats import FORMATS, format_of, rewindable, title_of
from vault_plugin.manifest.model import Manifest
from vault_plugin.manifest.shards import shard
from vault_plugin.manifest.targets import KEYS, settings_of
from vault_plugin.settings.declarations import default_company
from vault_plugin.timing.deadline import Deadline

F = TypeVar("F", bound=Callable[..., Any])


CONCURRENCY = option(
    "--concurrency",
    group="Limits",
    metavar="N",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Maximum number of identities processed in parallel.",
)


def _begun(_: click.Context, __: click.Parameter, seconds: float | None) -> Deadline | None:
    return None if seconds is None else Deadline(seconds)


DEADLINE = option(
    "--deadline",
    group="Limits",
    type=DURATION,
    callback=_begun,  # the reading of the manifest counts
    help="Overall timeout.  [default: none]",
)


def manifest_options(command: F) -> F:
    """A decorator for commands over a manifest; `opened_manifest` reads it."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("manifest", shell_complete=files),
    option(
        "--format",
        "form",
        group="Manifest",
        type=click.Choice(list(FORMATS)),
        help="Manifest format.  [default: file extension]",
    ),
    option(
        "--company-name",
        group="Manifest",
        metavar="TEXT",
        help="Default company name.  [env: KLEARSTACK_COMPANY_NAME]",
    ),
    option(
        "--shard",
        group="Manifest",
        metavar="[I/]N",
        help="Process shard I of N. The index defaults to CI_NODE_INDEX or JOB_COMPLETION_INDEX.",
    ),
    CONCURRENCY,
    option(
        "--rate",
        group="Limits",
        metavar="N",
        type=click.FloatRange(min=0, min_open=True),
        help="Maximum number of mints per second.  [default: none]",
    ),
)


@contextmanager
def opened_manifest(options: Mapping[str, Any], deadline: Deadline | None = None) -> Iterator[Manifest]:
    """Open and check the manifest that these options name. Raises SettingsError with all that is wrong, UsageError."""
    flags = dict(options)
    path, form, part = flags.pop("manifest"), flags.pop("form"), flags.pop("shard")
    company = default_company(flags.pop("company_name"))
    if company == "-":
        raise UsageError(
            "The default company of a manifest is not read from standard input; `-` is not supported."
        )
    with rewindable(path, deadline) as file:
        yield Manifest(
            file,
            format_of(path, form),
            shard(part),
            company,
            KEYS,
            lambda row, **newer: settings_of(row, {**flags, **newer}),
            title_of(path),
        )
