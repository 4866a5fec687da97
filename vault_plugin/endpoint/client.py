"""KlearStack's endpoint: an identity in, two fresh tokens out.

POST {url}/access/klearstack/getaccesstokenfromuserid, a urlencoded form, no Authorization. Asking again is safe: it
only mints another pair. What the endpoint answers is checked here and never shown.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from math import inf
from typing import Any

import requests
import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from vault_plugin.errors import Failure, SourceBusyError, SourceError, TokenError, UserMismatchError
from vault_plugin.failures import error_of, missing_parameter
from vault_plugin.network.library_logs import unlogged
from vault_plugin.network.peer import Cause, Peer
from vault_plugin.network.responses import SPEAKS_TLS, CompleteResponse, cut_short
from vault_plugin.network.sockets import Tls, within
from vault_plugin.settings.values import ENDPOINT_PATH, issuer
from vault_plugin.timing.backoff import full_jitter, retry_after
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.wording import named

MAX_BODY = 64 * 1024  # bytes; a pair of tokens has about 500
PATIENCE = 10.0  # seconds after which no further try begins
FALLBACK_PATIENCE = 3.5  # the same where a stored token can be used instead
REFUSED_PATIENCE, REFUSED_PAUSE = 3.0, 1.0  # the same, and the longest pause, where nobody listens
TRIES = 4  # at most, with such a token, or of a request that is told how long to wait
NAME_TRIES = 2
_LENGTH = re.compile(r"[0-9]{1,18}")
_CAUSES = {
    Cause.BROKEN: "broken",
    Cause.CERTIFICATE: "certificate",
    Cause.CLIENT_CERTIFICATE: "client_certificate",
    Cause.FILES: "files",
    Cause.NAME: "name",
    Cause.REFUSED: "refused",
    Cause.RESET: "reset",
    Cause.TIMEOUT: "timeout",
    Cause.TLS: "tls",
    Cause.UNREACHABLE: "unreachable",
}
_log = logging.getLogger(__name__)


class _Connection(urllib3.connection.HTTPConnection):
    """A connection of ours for urllib3, which asks `peer` for it. TLS is there already."""

    response_class = CompleteResponse
    debuglevel = (
        0  # with another one, which a program may set for all connections, http.client prints what is sent
    )
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
        waits_when_busy: bool = True,
    ) -> None:
        """`waits_when_busy`: a refusal because of too many requests (429) is tried again here, and not by the caller.

        `latest` (Unix seconds) is by the clock that is furthest on, Vault's or the endpoint's.
        """
        self._url = url + ENDPOINT_PATH
        self._issuer = issuer(url)
        self._clock = clock
        self._latest = latest or clock.now
        self._accept_other_users = accept_other_users
        self._waits_when_busy = waits_when_busy
        self._timeout = timeout
        self._peer = Peer.at(url, Tls(ca_file or DEFAULT_CA_BUNDLE_PATH))
        self._sleep = sleep
        self._idle: list[_Adapter] = []  # as many as there were callers at a time

    def obtain(self, identity: Identity, deadline: Deadline, *, fallback: bool = False) -> TokenSet:
        """Mint a pair of tokens. `fallback`: the caller has a stored token to use if this fails.

        Raises SourceRefusedError, SourceSettingsError, ParameterMissingError, SourceProtocolError and TokenError at
        once; what may pass is tried again for a while, then raised as SourceError or SourceBusyError.
        """
        # Whoever waits for all identities together asks again by itself.
        _log.info("minting at %s", self._url)
        patience = _Patience(deadline, fallback=fallback or not self._waits_when_busy)
        last: SourceError | None = None
        while True:
            try:
                return self._ask_in_time(identity, deadline)
            except SourceError as exc:
                if last and exc.failure and exc.failure.cause in {"deadline", "unasked"}:
                    raise last from None  # a try that is cut short shows nothing new
                if isinstance(exc, SourceBusyError) and not self._waits_when_busy:
                    raise
                last, pause = exc, patience.pause(exc)
                if pause is None:
                    raise
                _log.info("%s Trying again in %.2f s", exc, pause)
                self._sleep(pause)

    def _ask_in_time(self, identity: Identity, deadline: Deadline) -> TokenSet:
        """One request, given up after the timeout or at the deadline, whatever the endpoint sends."""
        left = deadline.left()
        if not left:
            raise self._error("unasked")
        try:
            adapter = self._idle.pop()
        except IndexError:
            adapter = _Adapter(self._peer)
        try:
            with unlogged(), within(Deadline(min(self._timeout, left))):
                return self._ask(adapter, identity)
        except SourceError as exc:
            if exc.failure == Failure("timeout") and left < self._timeout:
                raise self._error("deadline", int(left * 1000)) from None
            raise
        finally:
            self._idle.append(adapter)

    def close(self) -> None:
        """Close all connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, adapter: _Adapter, identity: Identity) -> TokenSet:
        sent = time.monotonic()
        try:
            with self._post(adapter, identity) as response:
                body = self._body(response)
            took = 1000 * (time.monotonic() - sent)
            _log.debug("POST %s: %d, %.0f ms", self._url, response.status_code, took)
            self._peer.check(response.status_code, body)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            failed = self._failed(exc)
            _log.debug("POST %s: no response: %s", self._url, failed)
            raise failed from None
        self._clock.observe_date(response.headers.get("Date"), sent)
        if response.status_code != 200:
            raise self._refusal(response, body)
        return self._pair(body, identity)

    def _failed(self, exc: Exception) -> SourceError:
        failure = self._peer.explain(exc)
        if failure.cause is Cause.SCHEME:
            return self._error("speaks_tls" if failure.details == SPEAKS_TLS else "speaks_plain")
        return self._error(_CAUSES[failure.cause], failure.number)

    def _error(self, cause: str, number: int = 0, retry_after: float = 0.0) -> SourceError:
        return error_of(Failure(cause, number, retry_after), self._url)

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

    def _pair(self, body: bytes, identity: Identity) -> TokenSet:
        if len(body) > MAX_BODY:
            raise self._error("too_long")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise self._error("no_json") from None
        if not isinstance(answer, dict):
            raise self._error("no_object")
        access, refresh = (self._token(answer, kind) for kind in Kind)
        if access.expires_at > refresh.expires_at:
            _log.warning("the endpoint's access token outlives its refresh token")
        self._must_name(identity, access, refresh)
        now = self._clock.now()
        _log.info(
            "minted: an access token for %d s, a refresh token for %d s", access.ttl(now), refresh.ttl(now)
        )
        version = answer.get("release_version")
        return TokenSet(access, refresh, str(version) if isinstance(version, str | int | float) else "")

    def _must_name(self, identity: Identity, *tokens: Token) -> None:
        """Raise UserMismatchError if the tokens are another user's, or warn of it if that is accepted."""
        if all(token.names(identity.user_id) for token in tokens):
            return
        if not self._accept_other_users:
            raise UserMismatchError(
                f"{self._url} answered with a token that names another user than the one asked for.",
                hint=f"Check {named('user_id')} and {named('url')}; if the endpoint names its users otherwise, accept "
                f"that: set {named('on_user_mismatch')} to warn.",
            )
        _log.warning("the endpoint's token names another user than the one asked for")

    def _token(self, answer: dict[str, Any], kind: Kind) -> Token:
        raw = answer.get(f"{kind}_token")
        if not isinstance(raw, str) or not raw:
            raise self._error(f"no_{kind}_token")
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
        status, headers = response.status_code, response.headers
        told = retry_after(headers.get("Retry-After"), headers.get("Date"))
        if status == 500 and (failure := missing_parameter(body)):
            return error_of(failure, self._url)
        if status == 429:
            return self._error("busy", status, told)
        if status >= 500:
            return self._error("status", status, told)
        return self._error("redirects" if 300 <= status < 400 else "refuses", status)


class _Patience:
    """How long, and how often, one call asks again."""

    def __init__(self, deadline: Deadline, *, fallback: bool) -> None:
        self._deadline = deadline
        self._fallback = fallback
        self._limit = deadline.patient(FALLBACK_PATIENCE if fallback else PATIENCE)
        self._refused = deadline.patient(REFUSED_PATIENCE)
        self._tries = 0
        self._pauses = full_jitter(0.5, 8.0)

    def pause(self, exc: SourceError) -> float | None:
        """Seconds to wait before the next try, after one that failed in this way; None if there is none."""
        self._tries += 1
        failure = exc.failure
        if failure is None or not exc.retryable or self._tries >= self._most(failure):
            return None
        pause, limit = max(next(self._pauses), failure.retry_after), self._limit
        if failure.cause == "refused":
            pause, limit = min(pause, REFUSED_PAUSE), self._refused
        elif failure.cause == "busy" and failure.retry_after and not self._fallback:
            limit = self._deadline  # it has told when to come back
        return pause if limit.permits(pause) else None

    def _most(self, failure: Failure) -> float:
        if failure.cause == "name":
            return NAME_TRIES
        told = failure.cause == "busy" and failure.retry_after
        return TRIES if told or self._fallback else inf
