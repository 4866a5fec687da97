"""Places: company and user as the segments of a path in Vault, as a listing returns them, and what such a path holds."""

import re
from math import floor
from typing import Literal, NamedTuple

from vault_plugin.errors import SettingsError
from vault_plugin.tokens.identity import Identity, encode
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

_HASHED = r"[A-Za-z0-9_@.~-]+~~[0-9a-f]{32}"


class Place(NamedTuple):
    """The two segments that belong to one identity alone. Names of more than 160 characters are hashed in them."""

    company: str
    user: str

    @classmethod
    def of(cls, identity: Identity) -> "Place":
        """The place of an identity."""
        return cls(encode(identity.company_name), encode(identity.user_id))

    def path(self, prefix: str, kind: Kind) -> str:
        """The path below the mount; that of the identity."""
        return f"{prefix}/{self.company}/{self.user}/{kind}"

    @property
    def identity(self) -> Identity | None:
        """The identity that belongs here; None if a name is hashed, or is none that an identity may have."""
        company, user = decode(self.company), decode(self.user)
        try:
            return Identity(user, company) if user and company else None
        except SettingsError:
            return None


def decode(segment: str) -> str | None:
    """The text that `encode` made the segment of; None if it was another one, or the segment holds a hash."""
    octets = re.sub(b"~([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), segment.encode())
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return None
    return text if text and encode(text) == segment else None


def is_segment(text: str) -> bool:
    """Whether `encode` can have made this segment of a name."""
    return bool(re.fullmatch(_HASHED, text)) or decode(text) is not None


class Holding(NamedTuple):
    """What the path of a token holds, without the token. Moments are Unix seconds, `now` that of the read by Vault's clock.

    `identity` is None if neither the path nor the data names it. `expires_at` is when the token expires or is deleted,
    whichever comes first; None if there is no token. `life` is its whole lifetime in seconds. An `unmanaged` secret is not
    ours.
    """

    place: Place
    kind: Kind
    ref: VaultRef
    now: float
    content: Literal["ours", "unmanaged", "nothing"] = "ours"
    identity: Identity | None = None
    expires_at: float | None = None
    life: float | None = None
    minted_at: float | None = None
    manifest: str = ""
    issued_by: str = ""

    @property
    def left(self) -> int | None:
        """Whole seconds until the token expires, never below 0; None if there is no token."""
        return None if self.expires_at is None else max(0, floor(self.expires_at - self.now))
