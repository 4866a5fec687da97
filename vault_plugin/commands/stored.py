"""What `status` and `delete` share: whose tokens are meant, and their options."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.stock import Site, listed, of_identities
from vault_plugin.bulk.targets import Targets, connect_all
from vault_plugin.commands.manifests import CONCURRENCY, DEADLINE, opened_manifest
from vault_plugin.commands.options import files
from vault_plugin.manifest.formats import format_of
from vault_plugin.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
MANIFEST_ARGUMENT = click.argument("manifest", required=False, shell_complete=files)


def limits(command: F) -> F:
    """A decorator that adds the options on how many requests are sent, and for how long."""
    return CONCURRENCY(DEADLINE(command))


class Chosen(NamedTuple):
    """The places that a command is about, in which Vaults they are, and how requests about them are sent."""

    sites: list[Site]
    targets: Targets
    parallel: Parallel


@contextmanager
def of_manifest(path: str, flags: Mapping[str, Any], company: str | None, **how: Any) -> Iterator[Chosen]:
    """Choose the identities of a manifest, whatever the shard. Raises what `opened_manifest` raises."""
    form = format_of(path, None, "Its name has to end in .yaml, .jsonl or .csv.")
    options = {**flags, "manifest": path, "form": form, "shard": "1/1", "company_name": company}
    with opened_manifest(options, how["deadline"]) as manifest, connect_all(manifest.targets) as targets:
        identities = (entry.identity for entry in manifest.entries())
        yield Chosen(list(of_identities(targets, identities)), targets, Parallel(targets, **how))


@contextmanager
def below_prefix(flags: Mapping[str, Any], **how: Any) -> Iterator[Chosen]:
    """Choose all that is stored below the prefix of the settings."""
    with connect_all([partial(Settings.for_many, **flags, on_vault_error="fail")]) as targets:
        parallel = Parallel(targets, **how)
        yield Chosen(list(listed(targets, parallel)), targets, parallel)


@contextmanager
def of_identity(flags: Mapping[str, Any], **how: Any) -> Iterator[Chosen]:
    """Choose the identity of the settings. Raises SettingsError."""
    flags = {**flags, "on_vault_error": "fail"}
    found = [Settings.from_env(**flags)]
    identity = found[0].identity()

    def gather(**newer: str) -> Settings:
        # A FIFO gives the credential once, so that it is not read again at the start.
        return found.pop() if found else Settings.for_many(**{**flags, **newer})

    with connect_all([gather]) as targets:
        yield Chosen(list(of_identities(targets, iter([identity]))), targets, Parallel(targets, **how))
