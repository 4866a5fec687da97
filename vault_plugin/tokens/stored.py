"""What Vault holds of an identity: a token, its place, and the state of that path."""

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.tokens.jwt import Token

REJECTED_EVERY = 60.0  # seconds from one rejection that counts to the next


class VaultRef(NamedTuple):
    """Where a token lies: `path` below the mount; KV v2's `version` and its times (RFC 3339, as Vault says)."""

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
        """Seconds by which Vault keeps `token` beyond its `exp`; 0 if it does not, or where Vault names no end."""
        deletion = parse_rfc3339(self.deletion_time)
        return 0.0 if deletion is None else max(0.0, deletion - token.expires_at)


class StoredToken(NamedTuple):
    """A token that lies in Vault, and the version of KlearStack that minted it."""

    token: Token
    ref: VaultRef
    release_version: str = ""

    def age(self, vault_now: float) -> float:
        """Seconds since Vault created this version (`vault_now`: Unix seconds by Vault's clock); 0 if it names no date."""
        created = parse_rfc3339(self.ref.created_time)
        return 0.0 if created is None else vault_now - created

    def left(self, now: float, vault_now: float) -> float:
        """Seconds until the token expires (`now`, `vault_now`: Unix seconds by the servers' clocks and by Vault's).

        The smaller of two: until its `exp`, and what is left of its life after its time in Vault. The second is what
        counts where the endpoint's clock is ahead of Vault's: `exp` is far away then, by Vault's clock.
        """
        by_age = self.token.life - self.age(vault_now) if self.ref.created_time else inf
        return min(self.token.expires_at - now, by_age)

    @property
    def overdue(self) -> float:
        """Seconds by which Vault keeps the token beyond its `exp`."""
        return self.ref.overdue(self.token)


class PathState(NamedTuple):
    """What is known of a path: its newest version (0: none, for check-and-set), the life in whole seconds that Vault
    gave to that version, the token in it, if there still is one, the issuer that its custom_metadata names, how long
    Vault took to tell (seconds), and when a token was rejected here (RFC 3339; empty if none was).
    """

    version: int = 0
    life: int | None = None
    stored: StoredToken | None = None
    issued_by: str = ""
    took: float = 0.0
    rejected_at: str = ""

    def newly_rejected(self, now: float) -> bool:
        """Whether another rejection does not count yet, at `now` (Unix seconds by Vault's clock)."""
        at = parse_rfc3339(self.rejected_at)
        return at is not None and abs(now - at) < REJECTED_EVERY
