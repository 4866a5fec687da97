"""Where tokens are stored in several Vaults: below their prefixes, or for the identities of a manifest."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vault_plugin.broker.inventory import Inventory
from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.targets import Targets
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.place import Holding, Place


class Site(NamedTuple):
    """A place in one of the Vaults, with the identity that it belongs to if that was known before."""

    inventory: Inventory
    place: Place
    identity: Identity | None = None


class Found(NamedTuple):
    """What was found at a site: the access token and the refresh token."""

    site: Site
    holdings: list[Holding]

    @property
    def ours(self) -> list[Holding]:
        """What we manage of it."""
        return [one for one in self.holdings if one.content == "ours"]


def listed(targets: Targets, parallel: Parallel) -> Iterator[Site]:
    """Yield the sites below each prefix; one listing for the prefix, and one for each company."""
    listings = parallel.map(lambda vault: vault.companies(), targets.inventories)
    companies = [(vault, company) for vault, found in listings for company in found]
    for (vault, _), places in parallel.map(lambda one: one[0].places(one[1]), companies):
        yield from (Site(vault, place) for place in places)


def of_identities(targets: Targets, identities: Iterator[Identity]) -> Iterator[Site]:
    """Yield the sites of these identities."""
    for identity in identities:
        place = Place.of(identity)
        yield from (Site(vault, place, identity) for vault in targets.inventories)


def looked(sites: Iterable[Site], parallel: Parallel, *, thorough: bool = False) -> Iterator[Found]:
    """Yield what these sites hold, in any order; for `thorough` see Inventory.holdings."""

    def look(site: Site) -> list[Holding]:
        return site.inventory.holdings(site.place, thorough=thorough)

    for site, holdings in parallel.map(look, sites):
        identity = site.identity
        yield Found(site, [one._replace(identity=one.identity or identity) for one in holdings])
