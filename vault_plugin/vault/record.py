"""The record of a token in Vault: its data, all strings, and the custom metadata of its path."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from vault_plugin.errors import ForeignSecretError, TokenError
from vault_plugin.timing.clock import format_rfc3339, parse_rfc3339
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.wording import named

MANAGED_BY = {"managed-by": "klearstack-vault"}  # In the custom_metadata of every KV v2 path that we manage.
ISSUED_BY = "issued-by"  # In the custom_metadata: the endpoint that issued the token, where it is known.
# In the custom_metadata, and in the data of KV v1, which has none: the manifest whose `sync` or `watch` minted the token.
MANIFEST = "manifest"
# In the data: when the token before this one was removed, since a server had rejected it.
REJECTED_AT = "rejected_at"
MAX_VALUE = 512  # bytes; the longest value that custom_metadata takes


def described(stored: StoredToken | None) -> str:
    """What a read found, for the log, without the token."""
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
    """The data of the secret. Dates are RFC 3339 in UTC."""
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
    """When a token was rejected at the path with this data (RFC 3339); empty if none was."""
    return _text((data or {}).get(REJECTED_AT))


def without_token(data: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """The data with an empty token, which a read takes for a managed secret without a token."""
    return {**data, f"{kind}_token": ""}


def from_data(
    data: Mapping[str, Any], identity: Identity, kind: Kind, *, accept_other_users: bool = False
) -> Token | None:
    """The token in a secret's data; None if it has none that can be read, or one that names another user.

    Raises ForeignSecretError if we did not write the secret for this identity.
    """
    if (data.get("user_id"), data.get("company_name")) != (identity.user_id, identity.company_name):
        raise unmanaged()
    if f"{kind}_token" not in data:
        raise unmanaged()
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
    """The token in a secret's data, with its path; see `from_data`. Raises ForeignSecretError."""
    token = from_data(data, identity, kind, accept_other_users=accept_other_users)
    return StoredToken(token, ref, _text(data.get("release_version"))) if token else None


def _text(value: object, odd: str = "") -> str:
    """The text; `odd` for any other value, except an empty one."""
    if isinstance(value, str):
        return value
    return odd if value else ""


def is_managed(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of KV v2 says that we manage the path."""
    return MANAGED_BY.items() <= (metadata.get("custom_metadata") or {}).items()


def custom_metadata(token: Token, manifest: str = "") -> dict[str, str]:
    """The custom_metadata of the path for a token that belongs to the manifest of that name."""
    url = token.issued_by
    if len(url) > MAX_VALUE:
        url = f"{url[: MAX_VALUE - 66]}~~{sha256(url.encode()).hexdigest()}"
    return custom_metadata_of(url, manifest)


def custom_metadata_of(issuer: str, manifest: str = "") -> dict[str, str]:
    """The custom_metadata of a path for tokens of this issuer and this manifest, which are empty if not known."""
    return MANAGED_BY | ({ISSUED_BY: issuer} if issuer else {}) | marks(manifest)


def marks(manifest: str) -> dict[str, str]:
    """What says that a path belongs to the manifest of that name; nothing if that is empty."""
    return {MANIFEST: manifest} if manifest else {}


def manifest_in(marked: Mapping[str, Any] | None) -> str:
    """The name of the manifest in custom_metadata, or in the data of KV v1; empty if they name none."""
    return _text((marked or {}).get(MANIFEST))


def issuer_in(metadata: Mapping[str, Any]) -> str:
    """The issuer in the metadata of KV v2; empty if it names none."""
    return str((metadata.get("custom_metadata") or {}).get(ISSUED_BY, ""))


def unmanaged() -> ForeignSecretError:
    """The error for a path with a secret that we do not manage."""
    return ForeignSecretError(
        "The Vault path already holds a secret that klearstack-vault does not manage; it was not overwritten.",
        hint=f"Choose another path with {named('path_prefix')} or {named('mount')}; {named('verbose')} shows the path.",
    )
