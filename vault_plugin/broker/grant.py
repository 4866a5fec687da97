"""What a caller of the broker gets: tokens, with where they are stored and how long they are valid."""

import logging
from collections.abc import Mapping
from math import floor
from typing import Literal, NamedTuple

from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import VaultRef

_log = logging.getLogger(__name__)


class GrantedToken(NamedTuple):
    """A token and its place in Vault, which is None if Vault was bypassed.

    `early`: seconds before its `exp` at which it expires by the servers' clocks, as the endpoint's is ahead of Vault's.
    """

    token: Token
    ref: VaultRef | None
    early: float = 0.0

    def left(self, now: float) -> float:
        """Seconds until it expires, at `now` (Unix seconds)."""
        return self.token.expires_at - self.early - now

    def ttl(self, now: float) -> int:
        """Whole seconds until it expires, never below 0, at `now` (Unix seconds)."""
        return max(0, floor(self.left(now)))


class Grant(NamedTuple):
    """The tokens of one call. Lifetimes count from `now` (Unix seconds; see timing/clock.py).

    `waited`: another caller held the lock of the identity, and this one waited for it (single-flight).
    """

    tokens: Mapping[Kind, GrantedToken]
    source: Literal["vault", "endpoint"]
    stale: bool
    now: float
    waited: bool = False

    @property
    def shortest_ttl(self) -> int:
        """Whole seconds until the first of them expires."""
        return min(granted.ttl(self.now) for granted in self.tokens.values())

    def left(self, now: float) -> float:
        """Seconds until the first of them expires, at `now` (Unix seconds)."""
        return min(granted.left(now) for granted in self.tokens.values())

    @property
    def overdue(self) -> float:
        """Seconds by which Vault keeps one of them beyond its `exp`; 0 if it deletes all of them in time."""
        return max(
            granted.ref.overdue(granted.token) if granted.ref else 0.0 for granted in self.tokens.values()
        )

    @property
    def access(self) -> GrantedToken:
        """The access token. Raises KeyError unless it was requested."""
        return self.tokens[Kind.ACCESS]

    @property
    def refresh(self) -> GrantedToken:
        """The refresh token. Raises KeyError unless it was requested."""
        return self.tokens[Kind.REFRESH]


def checked(identity: Identity, grant: Grant) -> Grant:
    """Warn of a stored token that names another user, which is returned only where the settings accept that."""
    if grant.source == "vault" and not all(
        granted.token.names(identity.user_id) for granted in grant.tokens.values()
    ):
        _log.warning("the stored token names another user than the one asked for")
    return grant
