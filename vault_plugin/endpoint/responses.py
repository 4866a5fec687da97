"""What a response of the endpoint says: two tokens, or why there are none. It is checked here, and never shown."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from vault_plugin.endpoint.connections import MAX_BODY, Response
from vault_plugin.errors import Failure, SourceError, TokenError, UserMismatchError
from vault_plugin.failures import error_of
from vault_plugin.timing.backoff import retry_after
from vault_plugin.timing.clock import ServerClock
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.wording import named

SHORT = 2048  # bytes of an error's body; the documented one, with two tokens after it, has about 900
# The API's documentation shows no body of the 500, only: "One or Many Required parameters from company name must be missing".
# Compiled when they are needed, as all patterns that a warm read does without.
_PARAMETERS = {"company_name": r"company[ _]?name", "user_id": r"user[ _]?id"}
_SENTENCE = r"(?s)required\s+parameters?\b.{1,200}\bmissing"
_COMPLAINT = r"\b(missing|required?|must|provide)\b"
_log = logging.getLogger(__name__)


class ResponseReader:
    """Reads the responses of the endpoint at `url`, which mints tokens in the name of `issuer`.

    `latest` (Unix seconds) is by the clock that is furthest ahead, Vault's or the endpoint's.
    """

    def __init__(
        self,
        url: str,
        issuer: str,
        clock: ServerClock,
        latest: Callable[[], float],
        *,
        accept_other_users: bool,
    ) -> None:
        self._url = url
        self._issuer = issuer
        self._clock = clock
        self._latest = latest
        self._accept_other_users = accept_other_users

    def tokens(self, response: Response, identity: Identity) -> TokenSet:
        """The tokens of that identity in the response. Raises SourceError and its branches, TokenError."""
        self._raise_for_status(response)
        body = self._json(response.body)
        access, refresh = (self._token(body, kind) for kind in Kind)
        if access.expires_at > refresh.expires_at:
            _log.warning("the endpoint's access token outlives its refresh token")
        self._check_user(identity, access, refresh)
        now = self._clock.now()
        _log.info(
            "minted: an access token for %d s, a refresh token for %d s", access.ttl(now), refresh.ttl(now)
        )
        version = body.get("release_version")
        return TokenSet(access, refresh, str(version) if isinstance(version, str | int | float) else "")

    def _error(self, cause: str, number: int = 0, pause: float = 0.0) -> SourceError:
        return error_of(Failure(cause, number, pause), self._url)

    def _raise_for_status(self, response: Response) -> None:
        """Raise what a status other than 200 means. The body is read, but not shown."""
        status, headers = response.status, response.headers
        if status == 200:
            return
        pause = retry_after(headers.get("Retry-After"), headers.get("Date"))
        if status == 500 and (failure := missing_parameter(response.body)):
            raise error_of(failure, self._url)
        if status == 429:
            raise self._error("busy", status, pause)
        if status >= 500:
            raise self._error("status", status, pause)
        raise self._error("redirects" if 300 <= status < 400 else "refuses", status)

    def _json(self, body: bytes) -> dict[str, Any]:
        if len(body) > MAX_BODY:
            raise self._error("too_long")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise self._error("no_json") from None
        if not isinstance(found, dict):
            raise self._error("no_object")
        return found

    def _token(self, body: dict[str, Any], kind: Kind) -> Token:
        raw = body.get(f"{kind}_token")
        if not isinstance(raw, str) or not raw:
            raise self._error(f"no_{kind}_token")
        token = Token.from_jwt(raw, kind)
        now = self._clock.now()
        if not token.ttl(now):
            raise TokenError(
                f"The {kind} token of {self._url} has already expired.",
                hint="Compare the endpoint's clock with the dates of its tokens.",
            )
        token = token._replace(issued_by=self._issuer)
        if token.issued_at is None:
            return token._replace(issued_at=int(now))
        # A misdated token would count as newer than all that are minted after it.
        if token.issued_at > token.expires_at or token.is_ahead(self._latest()):
            raise TokenError(
                f"The {kind} token of {self._url} was issued in the future or after it expires (`iat`).",
                hint="Compare the endpoint's clock with the dates of its tokens, and with Vault's clock.",
            )
        return token

    def _check_user(self, identity: Identity, *tokens: Token) -> None:
        """Raise UserMismatchError if the tokens are another user's, or warn of it if that is accepted."""
        if all(token.names(identity.user_id) for token in tokens):
            return
        if not self._accept_other_users:
            raise UserMismatchError(
                f"{self._url} responded with a token that names another user than the one asked for.",
                hint=f"Check {named('user_id')} and {named('url')}. If the endpoint names its users differently, accept "
                f"that: set {named('on_user_mismatch')} to warn.",
            )
        _log.warning("the endpoint's token names another user than the one asked for")


def missing_parameter(body: bytes) -> Failure | None:
    """Return the failure if a 500 with this body is of the documented kind, which is permanent. None for an outage.

    The documented kind is short, names a parameter, and is JSON or the documented sentence: the page of an outage may name
    a parameter as well.
    """
    if len(body) > SHORT:
        return None
    text = body.decode(errors="replace").lower()
    named = [name for name, pattern in _PARAMETERS.items() if re.search(pattern, text)]
    if _is_json(body):
        documented = bool(re.search(_COMPLAINT, text)) and (bool(named) or "param" in text)
    else:
        documented = bool(named) and not text.lstrip().startswith("<") and bool(re.search(_SENTENCE, text))
    return Failure("_".join(["parameter", *named]), 500) if documented else None


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | str)
    except (ValueError, RecursionError):
        return False
