"""What Vault stores for an identity: a token, its path, and the state of that path."""

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.tokens.jwt import Token
from vault_plugin.tokens.secret import Secret

REJECTED_EVERY = 60.0  # seconds between two rejections that both count


class VaultRef(NamedTuple):
    """Where a token is stored: `path` below the mount; KV v2's `version` and its dates (RFC 3339, from Vault)."""

    mount: str
    path: str
    version: int | None = None
    deletion_time: str | None = None
    created_time: str | None = None

    def of_version(self, metadata: Mapping[str, Any]) -> "VaultRef":
        """The same path with the version that this KV v2 metadata describes."""
        return self._replace(
            version=metadata["version"],
            deletion_time=metadata["deletion_time"] or None,
            created_time=metadata["created_time"],
        )

    def overdue(self, token: Token) -> float:
        """Seconds by which Vault keeps `token` beyond its `exp`; 0 if it does not, or where Vault has no `deletion_time`."""
        deletion = parse_rfc3339(self.deletion_time)
        return 0.0 if deletion is None else max(0.0, deletion - token.expires_at)


class StoredToken(NamedTuple):
    """A token in Vault, and the version of KlearStack that minted it."""

    token: Token
    ref: VaultRef
    release_version: str = ""

    def age(self, vault_now: float) -> float:
        """Seconds since Vault created this version (`vault_now`: Unix seconds by Vault's clock); 0 if the date is not known."""
        created = parse_rfc3339(self.ref.created_time)
        return 0.0 if created is None else vault_now - created

    def left(self, now: float, vault_now: float) -> float:
        """Seconds until the token expires (`now`, `vault_now`: Unix seconds by the servers' clocks and by Vault's).

        The smaller of two: the time until `exp`, and its lifetime less its time in Vault. The second is the smaller one
        where the endpoint's clock is ahead of Vault's.
        """
        by_age = self.token.life - self.age(vault_now) if self.ref.created_time else inf
        return min(self.token.expires_at - now, by_age)

    @property
    def overdue(self) -> float:
        """Seconds by which Vault keeps the token beyond its `exp`."""
        return self.ref.overdue(self.token)


class WrappingToken(NamedTuple):
    """A token of Vault that returns, once, what was wrapped; `ttl` (seconds) counts from when Vault made it, and
    `expires_at` is Unix seconds by Vault's clock.
    """

    value: Secret
    ttl: int
    expires_at: float


class PathState(NamedTuple):
    """The state of a path: its newest version (0 if there is none, for check-and-set), the lifetime in whole seconds
    that Vault gave to that version, the token in it if it is not deleted, the issuer in its custom_metadata, how long
    Vault took to respond (seconds), when a token was last rejected here (RFC 3339; empty if none was), and the name of the
    manifest that the path belongs to (empty if it belongs to none).
    """

    version: int = 0
    life: int | None = None
    stored: StoredToken | None = None
    issued_by: str = ""
    took: float = 0.0
    rejected_at: str = ""
    manifest: str = ""

    def newly_rejected(self, now: float) -> bool:
        """Whether a token was rejected so recently that another rejection does not count (`now`: Unix seconds by Vault's clock)."""
        at = parse_rfc3339(self.rejected_at)
        return at is not None and abs(now - at) < REJECTED_EVERY
