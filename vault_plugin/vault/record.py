"""How a token is written in Vault: strings only, under names that say whose it is and how long it lives."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from vault_plugin.errors import ForeignSecretError, TokenError
from vault_plugin.timing.clock import format_rfc3339, parse_rfc3339
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.wording import named

MANAGED_BY = {"managed-by": "klearstack-vault"}  # custom_metadata of every KV v2 path that is ours
ISSUED_BY = "issued-by"  # custom_metadata: the endpoint whose token is below, where it is known
REJECTED_AT = (
    "rejected_at"  # in the data: when the token before this one was removed, since a server had rejected it
)
MAX_MARK = 512  # bytes; the longest value that custom_metadata takes


def described(stored: StoredToken | None) -> str:
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
) -> StoredToken | None:
    """The same with its place. Raises ForeignSecretError."""
    token = from_data(data, identity, kind, accept_other_users=accept_other_users)
    return StoredToken(token, ref, _text(data.get("release_version"))) if token else None


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
