"""Which stored tokens may be returned: fresh ones, or, if the endpoint is down, stale ones that have not expired."""

from collections.abc import Callable, Collection, Iterable
from typing import Literal

from vault_plugin.broker.grant import Grant, GrantedToken
from vault_plugin.errors import OtherEndpointError
from vault_plugin.tokens.stored import StoredToken
from vault_plugin.wording import named


class Freshness:
    """The rules of one broker.

    `now` and `vault_now` tell the Unix seconds, the one by the latest of the servers' clocks, the other by Vault's.
    `endpoint` is the issuer of the tokens that may be returned. `min_ttl` is in seconds.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        vault_now: Callable[[], float],
        endpoint: str,
        min_ttl: float,
    ) -> None:
        self.now = now
        self.vault_now = vault_now
        self.endpoint = endpoint
        self._min_ttl = min_ttl

    def fresh(self, stored: Collection[StoredToken | None], min_ttl: float | None = None) -> Grant | None:
        """Grant these tokens if each has `min_ttl` seconds left, or half of its lifetime if that is less."""
        grant = self.valid(stored)
        wanted = self._min_ttl if min_ttl is None else min_ttl
        if grant is None or not all(
            granted.left(grant.now) >= granted.token.margin(wanted) for granted in grant.tokens.values()
        ):
            return None
        return grant

    def valid(
        self,
        stored: Collection[StoredToken | None],
        source: Literal["vault", "endpoint"] = "vault",
        *,
        stale: bool = False,
    ) -> Grant | None:
        """Grant these tokens if all are there, none has expired, and this endpoint has issued all of them."""
        now, vault_now = self.now(), self.vault_now()
        tokens = {
            one.token.kind: GrantedToken(
                one.token, one.ref, one.token.expires_at - now - one.left(now, vault_now)
            )
            for one in stored
            if one and one.token.is_of(self.endpoint)
        }
        complete = len(tokens) == len(stored) and all(granted.ttl(now) for granted in tokens.values())
        return Grant(tokens, source, stale, now) if complete else None

    def raise_for_other_endpoint(self, stored: Iterable[StoredToken | None]) -> None:
        """Raise OtherEndpointError if a valid token of another endpoint is among them."""
        now = self.now()
        if any(one and one.token.ttl(now) and not one.token.is_of(self.endpoint) for one in stored):
            raise other_endpoint()


def other_endpoint() -> OtherEndpointError:
    """Make the error for a path that holds a valid token which another endpoint issued."""
    return OtherEndpointError(
        f"Another endpoint than the one of {named('url')} issued the token that Vault holds for this identity.",
        hint=f"Give each endpoint its own {named('path_prefix')}, or replace the stored token with {named('renew')}.",
    )
