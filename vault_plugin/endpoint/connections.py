"""Connections to the endpoint, through requests and urllib3: one form is sent, one response comes back or a cause why not."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests
import urllib3

from vault_plugin.network.causes import ConnectionFailure
from vault_plugin.network.library_logs import unlogged
from vault_plugin.network.peer import Peer
from vault_plugin.network.responses import CompleteResponse, cut_short
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.settings.proxies import Proxy
from vault_plugin.timing.deadline import Deadline

MAX_BODY = 64 * 1024  # bytes; two tokens have about 500
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "klearstack-vault",
}
_LENGTH = re.compile(r"[0-9]{1,18}")


class Response(NamedTuple):
    """A response of the endpoint; `body` has more than MAX_BODY bytes if there is more of it than that."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoResponseError(Exception):
    """There is no response; `failure` is why."""

    def __init__(self, failure: ConnectionFailure) -> None:
        super().__init__(failure)
        self.failure = failure


class _Connection(urllib3.connection.HTTPConnection):
    """A connection for urllib3 that `peer` makes, with TLS if the peer has it."""

    response_class = CompleteResponse
    # A program may set another one for all connections: then http.client prints what is sent.
    debuglevel = 0
    peer: Peer

    def connect(self) -> None:
        self.sock = self.peer.connect()


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class Adapter(requests.adapters.HTTPAdapter):
    """Connections for requests on which one deadline covers everything. They are kept: each costs as much as a request.

    There is no requests.Session around it: that would send cookies from one identity's request with the next, and take a
    login from ~/.netrc and a CA from REQUESTS_CA_BUNDLE. An adapter does none of these, nor does it follow a redirect,
    whose body, of any length, a session reads even with `allow_redirects=False`.
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


class Connections:
    """The connections to the endpoint at one URL, as many as there are requests at a time. Safe among threads."""

    def __init__(self, url: str, ca_file: str | None, proxy: Proxy | None = None) -> None:
        self._url = url
        self.peer = Peer.at(url, Tls(ca_file), proxy)
        self._idle: list[Adapter] = []

    def post(self, form: Mapping[str, str], deadline: Deadline) -> Response:
        """Send the form. Raises NoResponseError, also if the response is not complete by the deadline."""
        try:
            adapter = self._idle.pop()
        except IndexError:
            adapter = Adapter(self.peer)
        try:
            with unlogged(), within(deadline):
                return self._exchange(adapter, form)
        finally:
            self._idle.append(adapter)

    def close(self) -> None:
        """Close all connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, adapter: Adapter, form: Mapping[str, str]) -> Response:
        request = requests.Request("POST", self._url, data=form, headers=_HEADERS).prepare()
        try:
            with adapter.send(request, stream=True) as response:
                body = _body_of(response)
            self.peer.check(response.status_code, body)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise NoResponseError(self.peer.explain(exc)) from None
        return Response(response.status_code, response.headers, body)


def _body_of(response: requests.Response) -> bytes:
    """The body, of which no more is read than what shows that it is too long. Raises ConnectionError if it is cut short."""
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
