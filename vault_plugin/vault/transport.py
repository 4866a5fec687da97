"""HTTP requests to the nodes of one Vault cluster, with retries, its rate limit quota and its consistency index.

All requests to Vault are sent from here, hvac's included, so that its rules are in one place. A redirect is followed only
to a node that the settings name, since requests carry the Vault token.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from vault_plugin.errors import StoreError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.network.peer import Peer
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import RateLimit
from vault_plugin.timing.backoff import retry_after
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.vault import schema
from vault_plugin.vault.connections import FAILURES, Connections, Response
from vault_plugin.vault.quota import Quota
from vault_plugin.vault.retries import (
    FINAL,
    LAGGING,
    TRANSIENT,
    Attempts,
    Verdict,
    on_failure,
    on_response,
    with_status,
)
from vault_plugin.wording import named

RECENT = 1.0  # seconds for which a failure that is final is not looked for again
_log = logging.getLogger(__name__)


class TransportError(Exception):
    """A single request got no response that can be used; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class OutdatedError(Exception):
    """The request was not sent again, since its content is no longer valid. An earlier try may have been carried out."""


def always() -> bool:
    """For requests whose content stays valid."""
    return True


def never(_: Response) -> bool:
    """For requests of which no failure is known to be permanent."""
    return False


class Transport:
    """Requests to the nodes of one Vault cluster. Safe among threads."""

    def __init__(
        self,
        addresses: Sequence[str],
        clock: ServerClock,
        *,
        timeout: float,
        ca_file: str | None = None,
        ca_text: str | None = None,
        ca_folder: str | None = None,
        server_name: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        proxy: Proxy | None = None,
        max_retries: int | None = None,
        rate_limit: RateLimit | None = None,
        limiter: AdaptiveRateLimiter | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout` (seconds) limits each request; `limiter` learns how many of them this Vault accepts.

        `max_retries`: how often a request is sent again at most; None for as often as the deadline allows.
        """
        self.index: str | None = None  # X-Vault-Index of the newest write, which later reads must have seen.
        # Whether Vault has recognized the token, and granted none of its requests.
        self.only_denied = self._granted = False
        self._addresses = tuple(addresses)
        self._clock = clock
        self._timeout = timeout
        trust = {"ca_text": ca_text, "ca_folder": ca_folder, "server_name": server_name}
        tls = Tls(ca_file, client_cert, client_key, **trust)
        self._connections = Connections(addresses, tls, proxy)
        self._max_retries = max_retries
        self._limiter = limiter or AdaptiveRateLimiter()
        if rate_limit:
            self._limiter.limit(*rate_limit)
        self._local = threading.local()
        self._sleep = sleep
        self._node = 0
        self.quota = Quota(self._limiter, lambda: self._addresses[self._node], sleep)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
        *,
        repeatable: bool = True,
        in_time: Callable[[], bool] = always,
        is_permanent: Callable[[Response], bool] = never,
    ) -> Response:
        """Send a request until it has a result, or raise StoreError, StoreBusyError or OutdatedError.

        A request that may have been carried out is sent again only if it is `repeatable`. `in_time` says before each try
        whether its content is still valid, and `is_permanent` of a status 500 whether it concerns this request alone.
        """
        attempts = Attempts(self._addresses, repeatable=repeatable, max_retries=self._max_retries)
        while True:
            self.quota.wait(deadline)
            if not in_time():
                raise OutdatedError
            node = self._addresses[self._node]
            if not deadline.left():
                raise attempts.last or self._unsent(node)
            result = self._known_failure(node) or self._try(method, path, headers, body, deadline.left())
            if isinstance(result, Response):
                verdict = on_response(result, node, path, self._addresses, is_permanent)
                if verdict is None:
                    return result
            else:
                verdict = result
            self._choose_node(node, verdict)
            if verdict.is_quota:
                attempts.note(node, verdict)
            else:
                delay = attempts.delay(node, verdict, deadline)
                _log.info("Vault at %s: %s; trying again in %.2f s", node, verdict.reason, delay)
                self._sleep(delay)

    def once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Response:
        """Send one request to the current node, without retries.

        Raises TransportError if it gets no response, StoreBusyError if the rate limit of the settings does not permit it.
        """
        if self._limiter.is_limited:
            self.quota.wait(Deadline(seconds))
        node = self._addresses[self._node]
        result = self._try(method, path, headers, body, seconds)
        if isinstance(result, Verdict):
            self._local.failed = node, result, time.monotonic()
            raise TransportError(result)
        return result

    def peer(self, node: str) -> Peer:
        """The server at that address, one of the cluster's nodes."""
        return self._connections.peer(node)

    def _known_failure(self, node: str, least: int = FINAL) -> Verdict | None:
        """The verdict on what this thread has just sent there once, told once, if it weighs at least that much."""
        failed, verdict, at = getattr(self._local, "failed", ("", None, 0.0))
        self._local.failed = "", None, 0.0
        if verdict is None or failed != node or time.monotonic() - at >= RECENT:
            return None
        return verdict if verdict.weight >= least else None

    def _unsent(self, node: str) -> StoreError:
        """The error for a deadline that has passed before the first try: by what this thread had sent there once."""
        if verdict := self._known_failure(node, TRANSIENT):
            return verdict.error_of(node)
        message = f"The deadline passed before a request to Vault at {node} was sent."
        return StoreError(message, hint=f"Increase {named('deadline')}.")

    def close(self) -> None:
        """Close all connections, those in use as soon as their exchange has ended."""
        self._connections.close()

    def _try(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Response | Verdict:
        """Send one request to the current node; the verdict, if it gets no response that can be used."""
        node = self._addresses[self._node]
        all_headers = dict(headers)
        if self.index and method == "GET":
            # A standby of OpenBao reads from its own, older state unless the request says what it must contain.
            all_headers |= {"X-Vault-Index": self.index, "X-Vault-Inconsistent": "forward-active-node"}
        with unlogged(), within(Deadline(min(self._timeout, seconds))):
            try:
                response = self._connections.exchange(node, method, path, all_headers, body)
                if response.status == 400 and "X-Vault-Index" in all_headers:
                    response = self._without_index(node, path, headers)
            except FAILURES as exc:
                verdict = on_failure(self._connections.explain(node, exc))
                _log.debug("%s %s: %s", method, path, verdict.reason)
                return verdict
        self._clock.observe_date(response.headers.get("Date"), response.sent)
        if method != "GET" and (index := schema.index(response.headers)):
            self.index = index
        return self._checked(response, has_index="X-Vault-Index" in all_headers)

    def _without_index(self, node: str, path: str, headers: Mapping[str, str]) -> Response:
        """Read again without the index, and drop the index if Vault rejected it: it may be from an earlier cluster."""
        response = self._connections.exchange(node, "GET", path, headers, None)
        if response.status != 400:
            _log.info("Vault at %s rejected the index of an earlier write; it is dropped", node)
            self.index = None
        return response

    def _checked(self, response: Response, *, has_index: bool) -> Response | Verdict:
        """The response, or the verdict on a standby that lags behind. Tells the rate limiter what Vault accepts."""
        self._note_denial(response)
        limited = response.status == 429
        # A lagging standby of Vault responds with 412, one of OpenBao with 429 and no error, where a quota names itself.
        if response.status == 412 or (limited and has_index and not _lists_errors(response.body)):
            return with_status(LAGGING, response.status)
        if limited:
            seconds = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
            self._limiter.refuse(seconds, response.sent)
        elif response.status < 500:
            self._limiter.accept(response.sent)
        return response

    def _note_denial(self, response: Response) -> None:
        if response.status < 400 or response.status == 404:
            self._granted, self.only_denied = True, False
        elif response.status == 403 and not self._granted:
            said = "".join(schema.errors(response.body))
            self.only_denied |= any(text in said for text in schema.BY_POLICY)

    def _choose_node(self, node: str, verdict: Verdict) -> None:
        """Choose the node for the next try, unless another thread has already left `node`."""
        if verdict.leader:
            self._node = self._addresses.index(verdict.leader)
        if not verdict.stays and self._addresses[self._node] == node:
            self._node = (self._node + 1) % len(self._addresses)


def _lists_errors(body: bytes) -> bool:
    """Whether the body of an error response says what is wrong."""
    return body.translate(None, b" \r\n\t") != b'{"errors":[]}'
