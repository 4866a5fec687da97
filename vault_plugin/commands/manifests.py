"""What the commands over a manifest share: its options, and how it is read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from vault_plugin.errors import UsageError
from vault_plugin.manifest.formats import FORMATS, format_of, rewindable
from vault_plugin.manifest.model import Manifest
from vault_plugin.manifest.shards import shard
from vault_plugin.manifest.targets import KEYS, settings_of
from vault_plugin.settings.declarations import default_company
from vault_plugin.settings.values import positive_duration

F = TypeVar("F", bound=Callable[..., Any])


class _Duration(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return positive_duration(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


DURATION = _Duration()


def manifest_options(command: F) -> F:
    """A decorator for commands over a manifest; `opened_manifest` reads it."""
    for decorate in (
        click.option(
            "--rate", type=click.FloatRange(min=0, min_open=True), help="Mints per second, at most."
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 256),
            default=16,
            show_default=True,
            help="Identities at a time.",
        ),
        click.option(
            "--shard",
            metavar="[I/]N",
            help="Only the I-th of N parts. GitLab's parallel jobs know theirs; of N alone, those and Kubernetes' Indexed Jobs.",
        ),
        click.option(
            "--company-name",
            metavar="TEXT",
            help="Of identities that name none.  [env: KLEARSTACK_COMPANY_NAME]",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(list(FORMATS)),
            help="Of the manifest, if its name does not tell.",
        ),
        click.argument("manifest"),
    ):
        command = decorate(command)
    return command


@contextmanager
def opened_manifest(options: Mapping[str, Any]) -> Iterator[Manifest]:
    """The manifest that these options name, checked. Raises SettingsError with all that is wrong, UsageError."""
    flags = dict(options)
    path, form, part = flags.pop("manifest"), flags.pop("form"), flags.pop("shard")
    company = default_company(flags.pop("company_name"))
    if company == "-":
        raise UsageError("`-` stands for a line of standard input, which is no company of a manifest.")
    with rewindable(path) as file:
        yield Manifest(
            file,
            format_of(path, form),
            shard(part),
            company,
            KEYS,
            lambda row, **newer: settings_of(row, {**flags, **newer}),
        )
