"""`sync --prune`: delete the tokens of identities that the manifest no longer has."""

from os import EX_OK

import click

from vault_plugin.bulk.deletion import Deletion, pruned
from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.targets import Targets
from vault_plugin.commands.failed import PARTIAL
from vault_plugin.commands.options import identities, option, paths, print_out
from vault_plugin.errors import KlearstackVaultError, SettingsError, UsageError
from vault_plugin.manifest.model import Manifest

PRUNE = option(
    "--prune",
    group="Manifest",
    is_flag=True,
    help="Delete what belongs to the manifest of this `name`, and to none of its identities in any shard.",
)
YES = option(
    "--yes", group="Manifest", is_flag=True, help="Prune even if that is more than 10 % of the paths."
)


class Pruning:
    """One run: what is pruned is found at the start, before anything is minted, and deleted at the end."""

    def __init__(
        self, manifest: Manifest, targets: Targets, parallel: Parallel, *, check: bool, yes: bool
    ) -> None:
        """Raises UsageError if too much would be deleted, SettingsError, StoreError."""
        _require_what_identifies(manifest)
        self._error: KlearstackVaultError | None = None
        self._skipped = ""  # why nothing is deleted
        self._parallel = parallel
        self._check = check
        self._plan = pruned(targets, parallel, manifest)
        self._deletion = Deletion(manifest.name)
        if self._plan.is_large and not (check or yes):
            raise UsageError(
                f"{self._counted} would be pruned, which is more than 10 %: nothing was changed.",
                hint="List them with --check, and pass --yes if that is right.",
            )

    def run(self, stopped_by: str) -> None:
        """Delete what is planned, unless it is only to be listed, or `stopped_by` says why the mints ended early."""
        try:
            if self._check:
                return
            if stopped_by and self._plan.paths:
                self._skipped = stopped_by
            else:
                self._deletion.run(self._plan, self._parallel)
        except KlearstackVaultError as exc:
            self._error = exc

    def report(self, *, to_stderr: bool) -> None:
        """Say what was, or would be, deleted."""
        text = f"{paths(self._deletion.paths)} of {identities(len(self._deletion.places))} pruned\n"
        if self._skipped:
            text = f"{self._counted} not pruned ({self._skipped})\n"
        if self._check:
            lines = "".join(f"would delete {path}\n" for path in self._plan.paths)
            text = f"{lines}{self._counted} would be pruned\n"
        if to_stderr:
            click.echo(text, nl=False, err=True)
        else:
            print_out(text)
        for message, count in self._deletion.failures.items():
            click.echo(f"klearstack-vault: {identities(count)} not pruned: {message}", err=True)

    def exit_code(self, code: int, changed: int) -> int:
        """The exit code of a run whose mints end with `code`; `changed` if only something was, or would be, deleted.

        Raises what kept it from deleting anything more.
        """
        if self._error:
            raise self._error
        if code not in {EX_OK, changed}:
            return code
        if self._deletion.failures or self._skipped:
            return PARTIAL
        return changed if self._deletion.paths or (self._check and self._plan.paths) else code

    @property
    def _counted(self) -> str:
        return f"{paths(len(self._plan.paths))} of {identities(len(self._plan.places))}"


def _require_what_identifies(manifest: Manifest) -> None:
    """Raise SettingsError if it cannot be told what belongs to the manifest, or if nothing would be left of it."""
    if not manifest.name:
        raise SettingsError(
            "--prune needs a manifest with a name: nothing else says which tokens belong to it.",
            hint="Set `name` at the top of a YAML manifest; JSON Lines and CSV have no place for it.",
        )
    if not manifest.total:
        raise SettingsError(
            f"The {manifest.title} has no identities, and --prune would delete all of its tokens.",
            hint="`klearstack-vault delete` deletes them.",
        )
