"""How a token is written in Vault: strings only, under names that say whose it is and how long it lives."""

from collections.abc import Mapping
from hashlib import sha256
from math import inf
from typing import Any, NamedTuple

from vault_plugin.clock import format_rfc3339, parse_rfc3339
from vault_plugin.errors import ForeignSecretError, OtherEndpointError, TokenError
from vault_plugin.identity import Identity
from vault_plugin.tokens import Kind, Token
from vault_plugin.wording import named

MANAGED_BY = {"managed-by": "klearstack-vault"}  # custom_metadata of every KV v2 path that is ours
ISSUED_BY = "issued-by"  # custom_metadata: the endpoint whose token is below, where it is known
REJECTED_AT = (
    "rejected_at"  # in the data: when the token before this one was removed, since a server had rejected it
)
REJECTED_EVERY = 60.0  # seconds from one rejection that counts to the next
MAX_MARK = 512  # bytes; the longest value that custom_metadata takes


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


class Stored(NamedTuple):
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


class Slot(NamedTuple):
    """What is known of a path: its newest version (0: none, for check-and-set), the life in whole seconds that Vault
    gave to that version, the token in it, if there still is one, the issuer that its custom_metadata names, how long
    Vault took to tell (seconds), and when a token was rejected here (RFC 3339; empty if none was).
    """

    version: int = 0
    life: int | None = None
    stored: Stored | None = None
    issued_by: str = ""
    took: float = 0.0
    rejected_at: str = ""

    def newly_rejected(self, now: float) -> bool:
        """Whether another rejection does not count yet, at `now` (Unix seconds by Vault's clock)."""
        at = parse_rfc3339(self.rejected_at)
        return at is not None and abs(now - at) < REJECTED_EVERY


def described(stored: Stored | None) -> str:
    """For the log: what a read has found, without the token."""
    if stored is None:
        return "no token"
    ref, end = stored.ref, format_rfc3339(stored.token.expires_at)
    version = (
        "" if ref.version is None else f", version {ref.version}, deletion_time {ref.deletion_time or 'none'}"
    )
    return f"a token that expires at {end}{version}"


def to_data(
    token: Token, identity: Identity, release_version: str, *, rejected_at: str = ""
) -> dict[str, str]:
    """The secret's data. Dates are RFC 3339, UTC."""
    data = {
        f"{token.kind}_token": token.value.reveal(),
        "token_type": "Bearer",
        "expires_at": format_rfc3339(token.expires_at),
        "issued_at": "" if token.issued_at is None else format_rfc3339(token.issued_at),
        "jti": token.jti,
        "user_id": identity.user_id,
        "company_name": identity.company_name,
        "release_version": release_version,
        "issued_by": token.issued_by,
    }
    return data | ({REJECTED_AT: rejected_at} if rejected_at else {})


def rejected_at(data: Mapping[str, Any] | None) -> str:
    """When a token was rejected at the path that holds this data (RFC 3339); empty if none was."""
    return _text((data or {}).get(REJECTED_AT))


def without_token(data: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """A secret's data with nothing in place of the token: what a read takes for ours, and for no token."""
    return {**data, f"{kind}_token": ""}


def from_data(
    data: Mapping[str, Any], identity: Identity, kind: Kind, *, accept_other_users: bool = False
) -> Token | None:
    """The token in a secret's data; None if it is our secret, but holds no token that we can date, or one that names
    another user.

    Raises ForeignSecretError if it is not a secret that we wrote for this identity.
    """
    if (data.get("user_id"), data.get("company_name")) != (identity.user_id, identity.company_name):
        raise foreign()
    if f"{kind}_token" not in data:
        raise foreign()
    try:
        token = Token.from_jwt(data[f"{kind}_token"], kind)
    except TokenError:
        return None
    if not (accept_other_users or token.names(identity.user_id)):
        return None
    token = token._replace(issued_by=_text(data.get("issued_by"), odd="?"))
    if token.issued_at is None and (minted := parse_rfc3339(data.get("issued_at"))) is not None:
        return token._replace(issued_at=int(minted))
    return token


def stored_at(
    ref: VaultRef,
    data: Mapping[str, Any],
    identity: Identity,
    kind: Kind,
    *,
    accept_other_users: bool = False,
) -> Stored | None:
    """The same with its place. Raises ForeignSecretError."""
    token = from_data(data, identity, kind, accept_other_users=accept_other_users)
    return Stored(token, ref, _text(data.get("release_version"))) if token else None


def _text(value: object, odd: str = "") -> str:
    """The text, or `odd` for anything but a text or nothing, which we do not write."""
    if isinstance(value, str):
        return value
    return odd if value else ""


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Whether KV v2's metadata says that we manage the path."""
    return MANAGED_BY.items() <= (metadata.get("custom_metadata") or {}).items()


def marks(token: Token) -> dict[str, str]:
    """The custom_metadata of the path that a token is written to."""
    url = token.issued_by
    if len(url) > MAX_MARK:
        url = f"{url[: MAX_MARK - 66]}~~{sha256(url.encode()).hexdigest()}"
    return marks_of(url)


def marks_of(issuer: str) -> dict[str, str]:
    """The custom_metadata of a path that is ours, with the issuer that it already names; empty if it names none."""
    return MANAGED_BY | ({ISSUED_BY: issuer} if issuer else {})


def marked_issuer(metadata: Mapping[str, Any]) -> str:
    """The issuer that KV v2's metadata names; empty if it names none."""
    return str((metadata.get("custom_metadata") or {}).get(ISSUED_BY, ""))


def foreign() -> ForeignSecretError:
    """The error for a path at which somebody else's secret lies."""
    return ForeignSecretError(
        "Somebody else's secret lies in Vault where this identity's token belongs; it was left alone.",
        hint=f"Choose another place with {named('path_prefix')} or {named('mount')}; {named('verbose')} shows the path.",
    )


def of_another_endpoint() -> OtherEndpointError:
    """The error for a path at which a valid token lies that another endpoint issued."""
    return OtherEndpointError(
        f"Another endpoint than the one of {named('url')} issued the token that Vault holds for this identity.",
        hint=f"Give each endpoint its own {named('path_prefix')}, or replace the stored token with {named('renew')}.",
    )
