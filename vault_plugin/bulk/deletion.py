"""Deleting what is stored: first what would be deleted is found, then it is looked at again under each identity's lock."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.scope import Scope, scope_of
from vault_plugin.bulk.stock import Found, listed, looked
from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import KlearstackVaultError, internal_error
from vault_plugin.manifest.model import Manifest
from vault_plugin.tokens.place import Place

UNASKED = 0.1  # share of a manifest's paths that are pruned without a confirmation


class Plan(NamedTuple):
    """What would be deleted: the places, and their paths.

    `unmanaged` is the number of paths that are left alone since they hold another secret, `kept` the number of paths that
    the manifest keeps.
    """

    found: list[Found]
    paths: list[str]
    unmanaged: int = 0
    kept: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it is more than the share UNASKED of the manifest's paths."""
        return len(self.paths) > UNASKED * (len(self.paths) + self.kept)

    @property
    def places(self) -> set[Place]:
        """The places: one that is in several Vaults is one."""
        return {each.site.place for each in self.found}


class Deletion:
    """One run: how many `paths` of which `places` are deleted, and why others are not."""

    def __init__(self, manifest: str | None = None) -> None:
        """With a `manifest`, only paths are deleted that belong to the manifest of that name."""
        self.paths = 0
        self.places: set[Place] = set()
        self.failures: Counter[str] = Counter()
        self.last: KlearstackVaultError | None = None
        self._manifest = manifest

    def run(self, plan: Plan, parallel: Parallel, step: Callable[[], None] = lambda: None) -> None:
        """Delete what is still ours; `step` is called for each place. Raises StoreError if Vault fails for all of them."""
        for found, result in parallel.map(self._delete, plan.found):
            if isinstance(result, int):
                self.paths += result
                self.places |= {found.site.place} if result else set()
            else:
                self.failures[result.line] += 1
                self.last = result
            step()

    def _delete(self, found: Found) -> int | KlearstackVaultError:
        try:
            return found.site.inventory.delete(found.site.place, self._manifest)
        except KlearstackVaultError as exc:
            if scope_of(exc) is Scope.VAULT:
                raise
            return exc
        except Exception as exc:  # noqa: BLE001  an internal error of one identity does not stop the others
            return internal_error(exc)


def planned(founds: Iterable[Found], targets: Targets) -> Plan:
    """Plan to delete what is ours of this. The paths name their Vault if the targets have several."""
    several = len({one.address for one in targets.inventories}) > 1
    found, unmanaged = [], 0
    for each in founds:
        unmanaged += sum(one.content == "unmanaged" for one in each.holdings)
        found += [each] if each.ours else []
    found.sort(key=lambda each: (each.site.place, each.site.inventory.address))
    paths = [
        f"{one.ref.mount}/{one.ref.path}" + (f" at {each.site.inventory.address}" if several else "")
        for each in found
        for one in each.ours
    ]
    return Plan(found, paths, unmanaged)


def pruned(targets: Targets, parallel: Parallel, manifest: Manifest) -> Plan:
    """Plan to delete what belongs to the manifest of that name and to none of its identities, whatever their shard."""
    sites = list(listed(targets, parallel))
    others = [site for site in sites if not manifest.has(site.place)]
    founds = (
        Found(site, [one for one in holdings if one.manifest == manifest.name])
        for site, holdings in looked(others, parallel, thorough=True)
    )
    return planned(founds, targets)._replace(kept=2 * (len(sites) - len(others)))
