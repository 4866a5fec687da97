"""Access and refresh tokens: JWTs and their claims."""

import base64
import json
import re
from enum import StrEnum
from math import floor, inf
from typing import Any, NamedTuple

from vault_plugin.errors import TokenError
from vault_plugin.timing.clock import MAX_DATE
from vault_plugin.tokens.secret import Secret

_JWT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")  # RFC 7515, compact serialization
_WHOLE = r"(-?)([0-9]+)"
MAX_AHEAD = 60.0  # seconds by which the date of issue may be ahead of the servers' clocks
_EXACT = 2**53  # beyond it, two whole numbers may be one float


class Kind(StrEnum):
    """The two tokens of an identity: the value of the JWT's claim `token_type`, and the end of its Vault path."""

    ACCESS = "access"
    REFRESH = "refresh"


class Token(NamedTuple):
    """One JWT and its claims, unverified: there is no key here, and the token's receiver verifies it.

    Dates are Unix seconds. A fraction of `exp` is dropped, so that no token counts as valid longer than it is.
    `user_id` is None if the claim is absent or null, and empty if it cannot be a user ID: a boolean, list or object.
    `issued_by`, which is not a claim, is the URL of the endpoint that minted it; empty if it is not known.
    """

    kind: Kind
    value: Secret
    expires_at: int
    issued_at: int | None
    jti: str
    user_id: str | None
    issued_by: str = ""

    @classmethod
    def from_jwt(cls, raw: object, kind: Kind) -> "Token":
        """Read a JWT of this kind.

        Raises TokenError, which does not quote the text, unless it is a compact JWS (RFC 7515) whose payload is a
        JSON object with a number `exp` (RFC 7519, 4.1.4) and a `token_type` that fits.
        """
        try:
            claims = _claims(raw)
            if claims.get("token_type") != kind:
                raise TokenError(f"The {kind} token's `token_type` names another kind of token.")
            return cls(
                kind=kind,
                value=Secret(str(raw)),
                expires_at=_numeric_date(claims["exp"]),
                issued_at=_numeric_date(claims["iat"]) if "iat" in claims else None,
                jti=_text(claims.get("jti")),
                user_id=_named_user(claims.get("user_id")),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # From None, since the cause quotes the text.
            raise TokenError(f"The {kind} token is not a JWT with a valid `exp`.") from None

    @property
    def life(self) -> float:
        """Seconds from its issue to its `exp`; infinite where the date of issue is unknown."""
        return inf if self.issued_at is None else self.expires_at - self.issued_at

    def ttl(self, now: float) -> int:
        """Whole seconds left at `now` (Unix seconds), never below 0."""
        return max(0, floor(self.expires_at - now))

    def margin(self, min_ttl: float) -> float:
        """`min_ttl` (seconds), but at most half of the token's lifetime, where the JWT has a date of issue."""
        return min(min_ttl, self.life / 2)

    def names(self, user_id: str) -> bool:
        """Whether the claim allows that it is this user's: whole numbers compare as numbers, everything else as text.

        A token without the claim is accepted for every user. No identity has an empty user ID.
        """
        claim = self.user_id
        return claim is None or claim == user_id or _comparable(claim) == _comparable(user_id)

    def is_of(self, endpoint: str) -> bool:
        """Whether that endpoint issued it; true where one of the two is not known."""
        return not endpoint or self.issued_by in ("", endpoint)

    def is_ahead(self, now: float) -> bool:
        """Whether its date of issue is in the future, by more than clocks may differ."""
        return self.issued_at is not None and self.issued_at > now + MAX_AHEAD

    def newer_than(self, other: "Token") -> bool:
        """Whether it was issued later; at the same second, whether it expires later."""
        return (self.issued_at or 0, self.expires_at) > (other.issued_at or 0, other.expires_at)


class TokenSet(NamedTuple):
    """The result of one mint: both tokens, and the version of KlearStack that issued them."""

    access: Token
    refresh: Token
    release_version: str

    @property
    def tokens(self) -> tuple[Token, Token]:
        """The access and the refresh token."""
        return self.access, self.refresh


def _claims(raw: object) -> dict[str, Any]:
    match = _JWT.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError
    header, claims = (
        json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
        for part in match.groups()
    )
    if not (isinstance(header, dict) and isinstance(claims, dict)):
        raise TypeError
    return claims


def _numeric_date(value: object) -> int:
    """A number of seconds, perhaps with a fraction (RFC 7519, 2). JSON's `true` is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not 0 <= (date := floor(value)) <= MAX_DATE:
        raise OverflowError
    return date


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _named_user(claim: object) -> str | None:
    """The claim `user_id` as text; None if it is null, empty if it cannot be a user ID."""
    if claim is None:
        return None
    if isinstance(claim, float) and claim.is_integer() and abs(claim) < _EXACT:
        return str(int(claim))
    return str(claim) if isinstance(claim, str | int | float) and not isinstance(claim, bool) else ""


def _comparable(user_id: str) -> str:
    """The same text for each spelling of a whole number of any length. `int` limits the length."""
    match = re.fullmatch(_WHOLE, user_id)
    if match is None:
        return user_id
    digits = match[2].lstrip("0")
    return match[1] + digits if digits else "0"
