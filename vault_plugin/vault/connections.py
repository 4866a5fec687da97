"""Keep-alive connections to the nodes of a Vault cluster, one for each request in progress at the same time.

`~/.netrc` is not read, and a plain http Vault is never reached through a proxy, since what is sent carries the Vault token.
"""

import http.client
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from vault_plugin.network.causes import ConnectionFailure
from vault_plugin.network.peer import LocalPeer, Peer
from vault_plugin.network.responses import CompleteResponse, cut_short
from vault_plugin.network.sockets import Socket
from vault_plugin.network.tls import Tls
from vault_plugin.settings.proxies import Proxy

MAX_BODY = 4 * 1024 * 1024  # bytes of a response; Vault's own limit for a stored value is 1 MiB
FAILURES = (OSError, http.client.HTTPException)  # what `Connections.exchange` raises
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """One response of Vault; `sent` is when its request was sent (monotonic seconds)."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    sent: float


class _Connection(http.client.HTTPConnection):
    """Sends head and body of a request in one write; http.client makes two, each of which costs as much as a read."""

    response_class = CompleteResponse
    debuglevel = 0  # a program may set it for all connections, and http.client then prints the Vault token

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.host, peer.port)
        self.default_port = 443 if peer.tls else 80  # The `Host` header does not name this one.
        self._peer = peer

    def connect(self) -> None:
        self.sock = self._peer.connect()

    def is_quiet(self) -> bool:
        """Whether the connection can be used again."""
        return self.sock is not None and cast(Socket, self.sock).is_quiet()

    def send_request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request in one write."""
        self._unsent: list[bytes] = []
        self.request(method, path, body, headers)
        super().send(b"".join(self._unsent))

    def send(self, data: Any) -> None:
        self._unsent.append(data)


class Connections:
    """Connections to the nodes at these addresses. Safe among threads."""

    def __init__(self, addresses: Iterable[str], tls: Tls, proxy: Proxy | None = None) -> None:
        self._peers = {address: _peer(address, tls, proxy) for address in addresses}
        self._idle: dict[str, list[_Connection]] = {address: [] for address in self._peers}
        self._closed = False

    def exchange(
        self, node: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send one request and read its response. Raises FAILURES.

        A read is sent again where the server closed the idle connection that was used for it.
        """
        connection, reused = self._connection(node)
        sent = time.monotonic()
        try:
            base = "" if node.startswith("unix:") else urlsplit(node).path
            connection.send_request(method, base + path, body, headers)
            with connection.getresponse() as response:
                content = response.read(MAX_BODY + 1)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            connection.close()
            if not reused or method != "GET":
                raise
            return self.exchange(node, method, path, headers, body)
        except BaseException:
            connection.close()
            raise
        if len(content) > MAX_BODY or not _is_complete(response, content):
            connection.close()
            raise http.client.IncompleteRead(b"")
        self._idle[node].append(connection)
        if self._closed:  # meanwhile, by another thread
            self.close()
        _log.debug("%s %s: %d, %.0f ms", method, path, response.status, 1000 * (time.monotonic() - sent))
        self._peers[node].check(response.status, content)
        return Response(response.status, response.headers, content, sent)

    def peer(self, node: str) -> Peer:
        """The server at that address."""
        return self._peers[node]

    def explain(self, node: str, exc: Exception) -> ConnectionFailure:
        """Why an exchange with that node failed."""
        return self._peers[node].explain(exc)

    def close(self) -> None:
        """Close all connections, those in use as soon as their exchange has ended."""
        self._closed = True
        for connections in self._idle.values():
            with suppress(IndexError):
                while True:
                    connections.pop().close()

    def _connection(self, node: str) -> tuple[_Connection, bool]:
        """A connection to the node, and whether it has been used before."""
        with suppress(IndexError):
            while True:
                connection = self._idle[node].pop()
                if connection.is_quiet():
                    return connection, True
                connection.close()
        return _Connection(self._peers[node]), False


def _peer(address: str, tls: Tls, proxy: Proxy | None) -> Peer:
    if address.startswith("unix:"):
        return LocalPeer(address.removeprefix("unix://"))
    return Peer.at(address, tls, proxy)


def _is_complete(response: http.client.HTTPResponse, content: bytes) -> bool:
    """Whether the connection was not closed too early, which http.client reports for chunked bodies only."""
    if response.length is not None or response.chunked:
        return not response.length
    return not cut_short(content) if content or response.status == http.client.OK else True
