"""HTTP to Vault: keep-alive connections, as many as there are callers; verified TLS; no redirect but to a named node.

Every request to Vault takes this way, hvac's included, so that its rules stand in one place. Proxies are not
consulted and `~/.netrc` is not read: what is sent carries the Vault token.
"""

import http.client
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from vault_plugin.errors import StoreBusyError, StoreError, StoreSettingsError
from vault_plugin.failures import CLOCK, DATES
from vault_plugin.network.causes import Cause
from vault_plugin.network.library_logs import unlogged
from vault_plugin.network.peer import LocalPeer, Peer
from vault_plugin.network.responses import CompleteResponse, cut_short
from vault_plugin.network.sockets import Socket, within
from vault_plugin.network.tls import Tls
from vault_plugin.timing.backoff import full_jitter, retry_after
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.throttle import Throttle
from vault_plugin.vault import not_vault as strangers
from vault_plugin.vault import schema as answers
from vault_plugin.vault.not_vault import Redirect, place_of
from vault_plugin.wording import named

MAX_BODY = 4 * 1024 * 1024  # bytes of an answer; Vault's own limit for a stored value is 1 MiB
MAX_REFUSALS = (
    8  # in a row: about 2 s. A cluster that changes its leader answers meanwhile, one that is down doesn't.
)
_ADDRESS, _CA = named("vault_addr"), named("vault_cacert")
_CLIENT = f"{named('vault_client_cert')} and {named('vault_client_key')}"
_HINTS = {
    Cause.CERTIFICATE: f"Name its CA's PEM file with {_CA}; verification cannot be turned off.",
    Cause.CLIENT_CERTIFICATE: f"Check {_CLIENT}.",
    Cause.FILES: f"Check {_CA}, {_CLIENT}.",
    Cause.SCHEME: f"Correct the scheme in {_ADDRESS}.",
}
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """One answer of Vault; `sent` is when the request left (monotonic seconds)."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    sent: float


class TransportError(Exception):
    """No answer that stands.

    `ambiguous`: the request may have been carried out. `final`: asking this node again cannot help. `error`: what it
    is to the caller.
    """

    error: type[StoreError] = StoreError

    def __init__(self, reason: str, hint: str = "", *, ambiguous: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.hint = hint or f"Check {_ADDRESS}, and that Vault is up there."
        self.ambiguous = ambiguous
        self.final = final


class _SettledError(TransportError):
    """The second such answer of a node is its last: what it says does not pass by itself."""

    error: type[StoreError] = StoreSettingsError


class _RedirectError(TransportError):
    """The node names another one, `leader`, which is one of ours."""

    leader = ""


class _RefusedError(TransportError):
    """Nobody listens at that address."""


class _BusyError(TransportError):
    """The node asks for patience."""

    error = StoreBusyError


class _MisconfiguredError(TransportError):
    """A setting is wrong, here or at the node."""

    error = StoreSettingsError


class LastWordError(StoreError):
    """The status 500 is about this request alone."""

    for_all = False


class _SettledRequestError(_SettledError):
    """The same, about this request alone and not about the way to Vault."""

    error = LastWordError


class OutdatedError(Exception):
    """The request was not repeated: what it says no longer holds. An earlier try may have been carried out."""


def always() -> bool:
    """For requests that say the same at any time."""
    return True


class _QuotaError(_BusyError):
    """A rate limit quota is used up. The throttle knows when to ask again."""


class _Connection(http.client.HTTPConnection):
    """Sends a request's head and body at once; http.client makes two writes of it, each of which costs like a read."""

    response_class = CompleteResponse
    debuglevel = 0  # with another one, which a program may set for all connections, it prints the Vault token

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.host, peer.port)
        self.default_port = 443 if peer.tls else 80  # which the `Host` header does not name
        self._peer = peer

    def connect(self) -> None:
        self.sock = self._peer.connect()

    def is_quiet(self) -> bool:
        """Whether it may be used again."""
        return self.sock is not None and cast(Socket, self.sock).is_quiet()

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request."""
        self._unsent: list[bytes] = []
        self.request(method, path, body, headers)
        super().send(b"".join(self._unsent))

    def send(self, data: Any) -> None:
        self._unsent.append(data)


class Transport:
    """Requests to the nodes of one Vault cluster. Safe among threads."""

    def __init__(
        self,
        addresses: Sequence[str],
        clock: ServerClock,
        *,
        timeout: float,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        throttle: Throttle | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.index: str | None = None  # X-Vault-Index of the newest write: what later reads must have seen
        self._addresses = tuple(addresses)
        self._clock = clock
        self._timeout = timeout
        tls = Tls(ca_file, client_cert, client_key)
        self._peers = {address: _peer(address, tls) for address in addresses}
        self._throttle = throttle or Throttle()
        self._local = threading.local()
        self._sleep = sleep
        self._node = 0
        self._idle: dict[str, list[_Connection]] = {address: [] for address in addresses}

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
        is_settled: Callable[[Response], bool] = lambda _: False,
    ) -> Response:
        """Ask until some node gives an answer that stands, or the deadline passes.

        A reset, a timeout, a 307 to a dead leader and any 5xx leave open whether the request was carried out: it is
        repeated only if `repeatable` (a read, a check-and-set write, an idempotent one). Before each try, and after any
        wait, `in_time` says whether the request still makes sense. `is_settled` says of a 500 whether it is about this
        request alone: then there is a second try and no third.

        Raises StoreBusyError for a lasting 429, StoreError if no node answers as it should, OutdatedError.
        """
        pauses = full_jitter(0.1, 1.0)
        refusals: Counter[str] = Counter()
        last: StoreError | None = None  # the cause to be told if the deadline passes during a pause
        while True:
            self._await_turn(deadline)
            if not in_time():
                raise OutdatedError
            node = self._addresses[self._node]
            if not deadline.left():
                raise last or StoreError(
                    f"The deadline passed before Vault at {node} could be asked.",
                    hint=f"Give more time with {named('deadline')}.",
                )
            pause = next(pauses)
            try:
                answer = self.once(method, path, headers, body, deadline.left())
                self._stand(answer, node, path, is_settled)
            except _QuotaError:
                continue
            except _BusyError as exc:
                failure: TransportError = exc
                pause = max(pause, 0.05)
            except TransportError as exc:
                failure = exc
                self._turn_from(node)
            else:
                return answer
            refusals[node] = self._refusals(node, failure, refusals)
            hopeless = all(refusals[address] >= MAX_REFUSALS for address in self._addresses)
            last = failure.error(f"Vault at {node} gives no answer: {failure}.", hint=failure.hint)
            last.unrepeatable = not repeatable
            if hopeless or not deadline.permits(pause) or (failure.ambiguous and not repeatable):
                raise last from None
            _log.info("Vault at %s: %s; trying again in %.2f s", node, failure, pause)
            self._sleep(pause)

    @staticmethod
    def _refusals(node: str, failure: TransportError, refusals: Counter[str]) -> int:
        """How often that node has refused; MAX_REFUSALS where asking it again cannot help."""
        if failure.final:
            return MAX_REFUSALS
        if isinstance(failure, _SettledError):
            return refusals[node] + MAX_REFUSALS // 2
        if isinstance(failure, _RedirectError) and refusals[failure.leader] >= MAX_REFUSALS:
            return MAX_REFUSALS
        return refusals[node] + isinstance(failure, _RefusedError)

    @property
    def refuses(self) -> bool:
        """Whether Vault refused the newest request because of a rate limit quota."""
        return self._throttle.refusing

    @contextmanager
    def mint(self, deadline: Deadline) -> Iterator[None]:
        """Wait until Vault accepts enough requests for one more new pair of tokens, which is stored in the block.

        Raises StoreBusyError if that is not before the deadline.
        """
        with self._throttle.mint(deadline.left) as admitted:
            if not admitted:
                raise self._busy()
            yield

    def take_turns(self, requests: int, deadline: Deadline) -> None:
        """Wait at once for the next requests of this thread, so that none waits between them.

        Where Vault accepts too few for that, each of them waits. Raises StoreBusyError if the deadline is too early.
        """
        self._local.turns = 0
        if not self._throttle.gap:
            self._await_turn(deadline, requests)
            self._local.turns = requests

    @property
    def gap(self) -> float:
        """Seconds that pass in any case between two requests of a thread that belong together."""
        return self._throttle.gap

    def _await_turn(self, deadline: Deadline, requests: int = 1) -> None:
        """Wait until requests may be sent. Raises StoreBusyError if that is not before the deadline."""
        turns: int = getattr(self._local, "turns", 0)
        if turns:
            self._local.turns = turns - 1
            if self._throttle.stands(time.monotonic()):
                return
        while True:
            turn = self._throttle.reserve(requests)
            wait = turn - time.monotonic()
            if wait > 0:
                if wait >= deadline.left():
                    raise self._busy()
                _log.debug("Vault's rate limit quota: the next request is sent in %.2f s", wait)
                self._sleep(wait)
            if self._throttle.stands(turn):
                return

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"Vault at {self._addresses[self._node]} gives no answer: it is busy (status 429).",
            hint="Try again later, or ask for a higher rate limit quota.",
        )

    def once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Response:
        """One request to the current node, without any retry. Raises TransportError if no answer comes."""
        node = self._addresses[self._node]
        all_headers = dict(headers)
        if self.index and method == "GET":
            # OpenBao's standbys answer reads from their own, older state unless told what must be in it.
            all_headers |= {"X-Vault-Index": self.index, "X-Vault-Inconsistent": "forward-active-node"}
        with unlogged(), within(Deadline(min(self._timeout, seconds))):
            try:
                answer = self._exchange(node, method, path, all_headers, body)
                if answer.status == HTTPStatus.BAD_REQUEST and "X-Vault-Index" in all_headers:
                    answer = self._without_index(node, path, headers)
            except (OSError, http.client.HTTPException) as exc:
                failed = self._failed(node, exc)
                _log.debug("%s %s: %s", method, path, failed)
                raise failed from None
        self._clock.observe_date(answer.headers.get("Date"), answer.sent)
        if method != "GET" and (index := answers.index(answer.headers)):
            self.index = index
        self._learn(answer, waits_for_index="X-Vault-Index" in all_headers)
        return answer

    def _without_index(self, node: str, path: str, headers: Mapping[str, str]) -> Response:
        """The same read without the index, which is dropped if that is what Vault refused: it may be a memo of old."""
        answer = self._exchange(node, "GET", path, dict(headers), None)
        if answer.status != HTTPStatus.BAD_REQUEST:
            _log.info("Vault at %s rejected the index of an earlier write; it is dropped", node)
            self.index = None
        return answer

    def _learn(self, answer: Response, *, waits_for_index: bool) -> None:
        """Tell the throttle what Vault accepts. Raises TransportError for a standby that lags behind."""
        refused = answer.status == HTTPStatus.TOO_MANY_REQUESTS
        # Vault's standbys answer 412, OpenBao's 429 with an empty list of errors; a quota names itself there.
        if answer.status == HTTPStatus.PRECONDITION_FAILED or (
            refused and waits_for_index and not _names_an_error(answer.body)
        ):
            raise TransportError(
                f"it has not yet applied an earlier write (status {answer.status})", "Try again."
            )
        if refused:
            told = retry_after(answer.headers.get("Retry-After"), answer.headers.get("Date"))
            self._throttle.refuse(told, answer.sent)
        elif answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._throttle.accept(answer.sent)

    def close(self) -> None:
        """Close all connections that nobody uses at the moment."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    def _exchange(
        self, node: str, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Response:
        connection, reused = self._connection(node)
        sent = time.monotonic()
        try:
            connection.ask(
                method, path if node.startswith("unix:") else urlsplit(node).path + path, body, headers
            )
            with connection.getresponse() as response:
                content = response.read(MAX_BODY + 1)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            connection.close()
            if not reused or method != "GET":
                raise
            # The server closed an idle connection; whoever reads may simply ask on a new one.
            return self._exchange(node, method, path, headers, body)
        except BaseException:
            connection.close()
            raise
        if len(content) > MAX_BODY or not _is_whole(response, content):
            connection.close()
            raise http.client.IncompleteRead(b"")
        self._idle[node].append(connection)
        _log.debug("%s %s: %d, %.0f ms", method, path, response.status, 1000 * (time.monotonic() - sent))
        self._peers[node].check(response.status, content)
        return Response(response.status, response.headers, content, sent)

    def _connection(self, node: str) -> tuple[_Connection, bool]:
        """A connection to the node, and whether it has been used before."""
        with suppress(IndexError):
            while True:
                connection = self._idle[node].pop()
                if connection.is_quiet():
                    return connection, True
                connection.close()
        return _Connection(self._peers[node]), False

    def _failed(self, node: str, exc: Exception) -> TransportError:
        failure = self._peers[node].explain(exc)
        kind = _MisconfiguredError if failure.misconfigured else TransportError
        kind = _RefusedError if failure.cause is Cause.REFUSED else kind
        dated = failure.cause is Cause.CERTIFICATE and failure.number in DATES
        hint = CLOCK if dated else _HINTS.get(failure.cause, "")
        return kind(str(failure), hint, ambiguous=not failure.final, final=failure.final)

    def _stand(self, answer: Response, node: str, path: str, is_settled: Callable[[Response], bool]) -> None:
        """Raise TransportError unless the answer is Vault's last word."""
        status = answer.status
        is_page = strangers.is_page(answer.headers, answer.body)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise _QuotaError(f"it is busy (status {status})")
        if status == HTTPStatus.BAD_REQUEST and b"from non-versioned to versioned" in answer.body:
            raise _BusyError(
                "its KV engine is just being set up", "Try again in a moment."
            )  # a standby takes 1 s
        if status == HTTPStatus.SERVICE_UNAVAILABLE and not is_page and b"sealed" in answer.body:
            raise TransportError("it is sealed", "Have it unsealed.", final=True)
        if status == HTTPStatus.NOT_IMPLEMENTED and not is_page:
            raise TransportError("it is not initialized", "Have it initialized.", final=True)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise self._redirected(answer, node, path)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and is_settled(answer):
            raise _SettledRequestError(f"status {status}", "Vault's own log says more.", ambiguous=True)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and is_page:
            raise TransportError(
                f"status {status} with an HTML page, as of a proxy or load balancer", ambiguous=True
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TransportError(f"status {status}", "Vault's own log says more.", ambiguous=True)
        if not strangers.is_of_vault(status, answer.body):
            reason = strangers.described(status, answer.headers, answer.body)
            raise _MisconfiguredError(reason, strangers.advice(status), final=True)

    def _redirected(self, answer: Response, node: str, path: str) -> TransportError:
        """What a redirect means. It may follow what was carried out: seen of a standby whose forwarding broke."""
        redirect = Redirect.of(answer.status, answer.headers, node, path)
        places = [place_of(address) for address in self._addresses]
        if redirect.host and redirect.place in places:
            self._node = places.index(redirect.place)
            error = _RedirectError(f"it redirects to {redirect.host}, which does not answer", ambiguous=True)
            error.leader = self._addresses[self._node]
            return error
        if not redirect.standby:
            return _MisconfiguredError(str(redirect), redirect.advice, final=True)
        where = f" to {redirect.host}, which is none of the nodes that were given" if redirect.host else ""
        all_nodes = f"Give all nodes of the cluster in {_ADDRESS}, separated by commas." if where else ""
        return _SettledError(
            f"it redirects{where}, and redirects are not followed with a Vault token",
            all_nodes,
            ambiguous=True,
        )

    def _turn_from(self, node: str) -> None:
        """Go to the next node, unless a redirect or another thread has already moved us."""
        if self._addresses[self._node] == node:
            self._node = (self._node + 1) % len(self._addresses)


def _names_an_error(body: bytes) -> bool:
    """Whether Vault's answer says what is wrong."""
    return body.translate(None, b" \r\n\t") != b'{"errors":[]}'


def _peer(address: str, tls: Tls) -> Peer:
    if address.startswith("unix:"):
        return LocalPeer(address.removeprefix("unix://"))
    return Peer.at(address, tls)


def _is_whole(response: http.client.HTTPResponse, content: bytes) -> bool:
    """Whether the connection has not closed too early; http.client tells that of chunks alone."""
    if response.length is not None or response.chunked:
        return not response.length
    return not cut_short(content) if content or response.status == HTTPStatus.OK else True
