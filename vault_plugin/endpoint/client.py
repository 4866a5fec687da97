"""The client of KlearStack's endpoint: an identity in, two new tokens out.

POST {url}/access/klearstack/getaccesstokenfromuserid, a urlencoded form, no Authorization. Sending it again is safe: it
only mints another pair.
"""

import logging
import time
from collections.abc import Callable, Mapping

from vault_plugin.endpoint.connections import Connections, NoResponseError, Response
from vault_plugin.endpoint.responses import ResponseReader
from vault_plugin.endpoint.retries import Retries
from vault_plugin.errors import Failure, SourceBusyError, SourceError
from vault_plugin.failures import error_of
from vault_plugin.network.causes import Cause, ConnectionFailure
from vault_plugin.network.peer import Peer
from vault_plugin.network.responses import SPEAKS_TLS
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import ENDPOINT_PATH, issuer
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import TokenSet

_WITHOUT_IDENTITY = {
    400,
    422,
    500,
}  # statuses with which the endpoint may respond to a request that names no identity
_log = logging.getLogger(__name__)


class EndpointSource:
    """The token source. Safe among threads."""

    def __init__(
        self,
        url: str,
        clock: ServerClock,
        *,
        timeout: float,
        ca_file: str | None = None,
        proxy: Proxy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        latest: Callable[[], float] | None = None,
        accept_other_users: bool = False,
        waits_when_busy: bool = True,
    ) -> None:
        """`waits_when_busy`: after too many requests (429), the request is sent again here, and not by the caller.

        `latest` (Unix seconds) is by the clock that is furthest ahead, Vault's or the endpoint's.
        """
        self._url = url + ENDPOINT_PATH
        self._clock = clock
        self._waits_when_busy = waits_when_busy
        self._timeout = timeout
        self._sleep = sleep
        self._proxy = proxy
        self._connections = Connections(self._url, ca_file, proxy)
        self._reader = ResponseReader(
            self._url, issuer(url), clock, latest or clock.now, accept_other_users=accept_other_users
        )

    def obtain(self, identity: Identity, deadline: Deadline, *, fallback: bool = False) -> TokenSet:
        """Mint a pair of tokens. `fallback`: the caller has a stored token to use if this fails.

        Raises SourceRefusedError, SourceSettingsError, ParameterMissingError, SourceProtocolError and TokenError at
        once; what may pass is tried again for a while, then raised as SourceError or SourceBusyError.
        """
        _log.info("minting at %s", self._url)
        # A caller that waits for all identities together tries again by itself.
        retries = Retries(deadline, fallback=fallback or not self._waits_when_busy)
        last: SourceError | None = None
        while True:
            try:
                return self._request(identity, deadline)
            except SourceError as exc:
                if last and exc.failure and exc.failure.cause in {"deadline", "unasked"}:
                    raise last from None  # a try that the deadline cuts short shows nothing new
                if isinstance(exc, SourceBusyError) and not self._waits_when_busy:
                    raise
                last, pause = exc, retries.pause(exc)
                if pause is None:
                    raise
                _log.info("%s Trying again in %.2f s", exc, pause)
                self._sleep(pause)

    @property
    def peer(self) -> Peer:
        """The endpoint's server."""
        return self._connections.peer

    def explain(self, exc: BaseException) -> SourceError:
        """The error for an exception that a connection to the endpoint's server has raised."""
        return error_of(_failure_of(self.peer.explain(exc)), self._url, self._proxy)

    def probe(self, deadline: Deadline) -> Failure | None:
        """Send one request that cannot mint, since it names no identity; the failure that the endpoint reports.

        None if it responds as if an identity were named. Raises SourceError where there is no response, or one that is not
        the endpoint's.
        """
        try:
            self._reader.tokens(self._exchange({}, deadline), Identity("-", "-"))
        except SourceError as exc:
            if exc.failure and exc.failure.number in _WITHOUT_IDENTITY:
                return exc.failure
            raise
        return None

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._connections.close()

    def _request(self, identity: Identity, deadline: Deadline) -> TokenSet:
        """Send one request, which ends after the timeout or at the deadline, whatever the endpoint sends."""
        form = {"user_id": identity.user_id, "company_name": identity.company_name}
        return self._reader.tokens(self._exchange(form, deadline), identity)

    def _exchange(self, form: Mapping[str, str], deadline: Deadline) -> Response:
        left = deadline.left()
        if not left:
            raise error_of(Failure("unasked"), self._url)
        sent = time.monotonic()
        try:
            response = self._connections.post(form, Deadline(min(self._timeout, left)))
        except NoResponseError as exc:
            failure = _failure_of(exc.failure)
            if failure.cause == "timeout" and left < self._timeout:
                failure = Failure("deadline", int(left * 1000))
            error = error_of(failure, self._url, self._proxy)
            _log.debug("POST %s: no response: %s", self._url, error)
            raise error from None
        took = 1000 * (time.monotonic() - sent)
        _log.debug("POST %s: %d, %.0f ms", self._url, response.status, took)
        self._clock.observe_date(response.headers.get("Date"), sent)
        return response


def _failure_of(failure: ConnectionFailure) -> Failure:
    """The same failure in the terms of failures.py, which processes share."""
    if failure.cause is Cause.SCHEME:
        return Failure("speaks_tls" if failure.details == SPEAKS_TLS else "speaks_plain")
    return Failure(failure.cause.name.lower(), failure.number)
