"""KlearStack's endpoint: an identity in, two fresh tokens out.

POST {url}/access/klearstack/getaccesstokenfromuserid, a urlencoded form, no Authorization. Asking again is safe: it
only mints another pair. What the endpoint answers is checked here and never shown.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import requests
import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from vault_plugin.clock import ServerClock
from vault_plugin.errors import (
    ParameterMissingError,
    SourceBusyError,
    SourceError,
    SourceProtocolError,
    SourceRefusedError,
    TokenError,
    UserMismatchError,
)
from vault_plugin.identity import Identity
from vault_plugin.network import Tls, within
from vault_plugin.peer import Cause, Peer
from vault_plugin.responses import Response, cut_short
from vault_plugin.retry import Deadline, full_jitter, retry_after
from vault_plugin.tokens import Kind, Token, TokenPair
from vault_plugin.values import ENDPOINT_PATH, issuer

MAX_BODY = 64 * 1024  # bytes; a pair of tokens has about 500
TRIES = 4
_LENGTH = re.compile(r"[0-9]{1,18}")
_log = logging.getLogger(__name__)

_CHECKS = {
    401: "The endpoint wants no login; check --url.",
    403: "Check that this host may call it (IP allow-list).",
    404: "Check --url: it is what stands before /access/klearstack/ in your API's address.",
}
# Its page shows no body of the 500, only: "One or Many Required parameters from company name must be missing".
_PARAMETERS = {name: re.compile(name.replace("_", "[ _]?")) for name in ("company_name", "user_id")}


class _Connection(urllib3.connection.HTTPConnection):
    """A connection of ours for urllib3, which asks `peer` for it. TLS is there already."""

    response_class = Response
    peer: Peer

    def connect(self) -> None:
        self.sock = self.peer.connect()


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections of ours for requests, on which one limit covers everything. They are kept: each costs as much as a request.

    There is no requests.Session around it: that would carry cookies from one identity's request to the next, take a login
    from ~/.netrc and a CA from REQUESTS_CA_BUNDLE. A bare adapter knows none of these, nor does it follow a redirect,
    whose body, of any length, a session reads even if told not to follow it.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        plain = peer.tls is None
        pool = urllib3.HTTPConnectionPool if plain else urllib3.HTTPSConnectionPool
        self._pool = pool(peer.host, peer.port)
        kind = _Connection if plain else _TlsConnection
        self._pool.ConnectionCls = type(kind.__name__, (kind,), {"peer": peer})

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> urllib3.HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class EndpointSource:
    """The token source. Safe among threads."""

    def __init__(
        self,
        url: str,
        clock: ServerClock,
        *,
        timeout: float,
        ca_file: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        latest: Callable[[], float] | None = None,
        accept_other_users: bool = False,
    ) -> None:
        """`latest` (Unix seconds) is by the clock that is furthest on, Vault's or the endpoint's."""
        self._url = url + ENDPOINT_PATH
        self._issuer = issuer(url)
        self._clock = clock
        self._latest = latest or clock.now
        self._accept_other_users = accept_other_users
        self._timeout = timeout
        self._peer = Peer.at(url, Tls(ca_file or DEFAULT_CA_BUNDLE_PATH))
        self._sleep = sleep
        self._idle: list[_Adapter] = []  # as many as there were callers at a time

    def obtain(self, identity: Identity, deadline: Deadline) -> TokenPair:
        """Mint a pair of tokens.

        Raises SourceRefusedError, ParameterMissingError, SourceProtocolError and TokenError at once; what may pass
        is tried up to four times inside the deadline, then raised as SourceError or SourceBusyError.
        """
        pauses = full_jitter(0.5, 8.0)
        for left in reversed(range(TRIES)):
            try:
                return self._ask_in_time(identity, deadline)
            except SourceError as exc:
                pause = max(next(pauses), getattr(exc, "retry_after", 0.0))
                if not (exc.retryable and left and pause < deadline.left()):
                    raise
                _log.info("%s Trying again in %.2f s", exc, pause)
                self._sleep(pause)
        raise AssertionError  # pragma: no cover  the last try returns or raises

    def _ask_in_time(self, identity: Identity, deadline: Deadline) -> TokenPair:
        """One request, given up after the timeout or at the deadline, whatever the endpoint sends."""
        if not deadline.left():
            raise self._unavailable("could not be asked before the deadline passed")
        try:
            adapter = self._idle.pop()
        except IndexError:
            adapter = _Adapter(self._peer)
        try:
            with within(Deadline(min(self._timeout, deadline.left()))):
                return self._ask(adapter, identity)
        finally:
            self._idle.append(adapter)

    def close(self) -> None:
        """Close all connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, adapter: _Adapter, identity: Identity) -> TokenPair:
        sent = time.monotonic()
        try:
            with self._post(adapter, identity) as response:
                body = self._body(response)
            self._peer.check(response.status_code, body)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise self._failed(exc) from None
        self._clock.observe_date(response.headers.get("Date"), sent)
        if response.status_code != 200:
            raise self._refusal(response, body)
        return self._pair(body, identity)

    def _failed(self, exc: Exception) -> SourceError:
        failure = self._peer.explain(exc)
        match failure.cause:
            case Cause.CERTIFICATE:
                return SourceError(
                    f"The TLS certificate of {self._url} does not verify.",
                    hint="Name its CA's PEM file with --ca-cert; verification cannot be turned off.",
                )
            case Cause.TIMEOUT:
                return self._unavailable("did not answer in time")
            case Cause.BROKEN:
                return self._unavailable("broke the connection")
            case _:
                may_pass = failure.cause in {Cause.NAME, Cause.REFUSED}
                hint = "Check --ca-cert." if failure.cause is Cause.FILES else "Check --url."
                hint = "Check --url, or try again later." if may_pass else hint
                return SourceError(
                    f"{self._url} cannot be reached: {failure}.", hint=hint, retryable=may_pass
                )

    def _post(self, adapter: _Adapter, identity: Identity) -> requests.Response:
        request = requests.Request(
            "POST",
            self._url,
            data={"user_id": identity.user_id, "company_name": identity.company_name},
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "klearstack-vault",
            },
        )
        return adapter.send(request.prepare(), stream=True)

    @staticmethod
    def _body(response: requests.Response) -> bytes:
        body = b""
        while len(body) <= MAX_BODY:
            chunk = response.raw.read1(MAX_BODY, decode_content=False)
            if not chunk:
                break
            body += chunk
        expected = response.headers.get("Content-Length", "")
        if len(body) <= MAX_BODY and (
            len(body) < int(expected)
            if _LENGTH.fullmatch(expected)
            else "Transfer-Encoding" not in response.headers and response.ok and cut_short(body)
        ):
            raise requests.exceptions.ConnectionError
        return body

    def _pair(self, body: bytes, identity: Identity) -> TokenPair:
        if len(body) > MAX_BODY:
            raise SourceProtocolError(f"The answer of {self._url} is too long to be two tokens.")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise SourceProtocolError(
                f"The answer of {self._url} is not JSON.",
                hint="Check --url: is it the API's, not a web page's?",
            ) from None
        if not isinstance(answer, dict):
            raise SourceProtocolError(f"The answer of {self._url} is no JSON object.")
        access, refresh = (self._token(answer, kind) for kind in Kind)
        if access.expires_at > refresh.expires_at:
            _log.warning("the endpoint's access token outlives its refresh token")
        self._must_name(identity, access, refresh)
        version = answer.get("release_version")
        return TokenPair(access, refresh, str(version) if isinstance(version, str | int | float) else "")

    def _must_name(self, identity: Identity, *tokens: Token) -> None:
        """Raise UserMismatchError if the tokens are another user's, or warn of it if that is accepted."""
        if all(token.names(identity.user_id) for token in tokens):
            return
        if not self._accept_other_users:
            raise UserMismatchError(
                f"{self._url} answered with a token that names another user than the one asked for.",
                hint="Check --user-id and --url; if the endpoint names its users otherwise, accept that with "
                "--on-user-mismatch warn (KLEARSTACK_ON_USER_MISMATCH).",
            )
        _log.warning("the endpoint's token names another user than the one asked for")

    def _token(self, answer: dict[str, Any], kind: Kind) -> Token:
        raw = answer.get(f"{kind}_token")
        if not isinstance(raw, str) or not raw:
            raise SourceProtocolError(f"The answer of {self._url} has no `{kind}_token`.")
        token = Token.from_jwt(raw, kind)
        now = self._clock.now()
        if not token.ttl(now):
            raise TokenError(
                f"The {kind} token of {self._url} has already expired.",
                hint="Compare the endpoint's clock with its tokens.",
            )
        token = token._replace(issued_by=self._issuer)
        if token.issued_at is None:
            return token._replace(issued_at=int(now))
        # A misdated token would count as newer than all that are minted after it.
        if token.issued_at > token.expires_at or token.is_ahead(self._latest()):
            raise TokenError(
                f"The {kind} token of {self._url} says that it was issued in the future or after it expires (`iat`).",
                hint="Compare the endpoint's clock with its tokens, and with Vault's clock.",
            )
        return token

    def _refusal(self, response: requests.Response, body: bytes) -> SourceError:
        """What a status other than 200 means; the body is looked at, but not shown."""
        status = response.status_code
        text = body.decode(errors="replace").lower()
        named = [name for name, pattern in _PARAMETERS.items() if pattern.search(text)]
        if status == 500 and (named or ("missing" in text and "param" in text)):
            return ParameterMissingError(
                f"{self._url} misses a required parameter: {' or '.join(named) or 'it does not say which'}.",
                hint="Check --user-id and --company-name: the endpoint may not know them.",
            )
        if status == 429:
            busy = SourceBusyError(
                f"{self._url} asks to slow down (429).", hint="Try again later.", retryable=True
            )
            busy.retry_after = retry_after(response.headers.get("Retry-After"))
            return busy
        if status >= 500:
            return self._unavailable(f"answers with status {status}")
        if 300 <= status < 400:
            return SourceRefusedError(
                f"{self._url} redirects ({status}), which is not followed.",
                hint="Check --url: https, the right host?",
            )
        return SourceRefusedError(
            f"{self._url} refuses (status {status}).",
            hint=_CHECKS.get(status, "Check --user-id, --company-name and --url."),
        )

    def _unavailable(self, what: str) -> SourceError:
        return SourceError(f"{self._url} {what}.", hint="Check --url, or try again later.", retryable=True)
