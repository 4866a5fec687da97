"""What a peer finds out about its server, and what happens when something cuts in while it connects."""

import errno
import http.client
import http.server
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.ports import own_port, require_loopback
from support.tls import pki, serving_https

from vault_plugin.network import sockets as network
from vault_plugin.network import tunnels
from vault_plugin.network.causes import Cause
from vault_plugin.network.peer import Peer
from vault_plugin.network.responses import SPEAKS_TLS
from vault_plugin.network.sockets import within
from vault_plugin.network.tls import Tls
from vault_plugin.output import streams
from vault_plugin.settings.proxies import Proxy
from vault_plugin.timing import blocking
from vault_plugin.timing.deadline import Deadline


@contextmanager
def _vanishing() -> Iterator[int]:
    """The port of a server that hangs up on its first client, and takes no second one."""
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        thread.join(10)
        listener.close()


def test_a_closed_port_refuses_a_connection_with_tls() -> None:
    peer = Peer.at(f"https://127.0.0.1:{own_port()}", Tls(None))
    with within(Deadline(10)), pytest.raises(ConnectionRefusedError):
        peer.connect()


def test_a_server_that_hangs_up_and_is_gone_is_not_taken_for_plain_http() -> None:
    require_loopback()
    with _vanishing() as port, within(Deadline(10)):
        peer = Peer.at(f"https://127.0.0.1:{port}", Tls(None))
        with pytest.raises(OSError, match=r"(?i)eof|reset") as caught:
            peer.connect()
        assert peer.explain(caught.value).cause in {Cause.BROKEN, Cause.RESET}


def test_the_second_closing_shows_that_a_server_with_a_trusted_certificate_speaks_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_loopback()
    files = pki(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", files["ca"])
    with serving_https(files, http.server.BaseHTTPRequestHandler) as url, within(Deadline(10)):
        Peer.at(url, Tls(None)).connect().close()  # it is trusted by default, as the look at it will find
        peer = Peer.at(url.replace("https:", "http:"), Tls(None))
        first, second = (peer.explain(ConnectionResetError()) for _ in range(2))
    assert first.cause is Cause.BROKEN
    assert (second.cause, second.details) == (Cause.SCHEME, SPEAKS_TLS)


def test_a_handshake_that_fails_is_tls_and_no_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    require_loopback()
    with socket.create_server(("127.0.0.1", 0)) as server, within(Deadline(10)):
        context = ssl.SSLContext(
            ssl.PROTOCOL_TLS_SERVER
        )  # without a certificate there is no cipher to agree on

        def refuse() -> None:
            connection, _ = server.accept()
            with suppress(OSError), connection:
                context.wrap_socket(connection, server_side=True)

        threading.Thread(target=refuse, daemon=True).start()
        peer = Peer.at(f"https://127.0.0.1:{server.getsockname()[1]}", Tls(None))
        monkeypatch.setattr(peer, "_speaks_plain_http", lambda: False)  # another test's subject
        with pytest.raises(ssl.SSLError) as caught:
            peer.connect()
    failure = peer.explain(caught.value)
    assert (failure.cause, failure.final) == (Cause.TLS, False)
    assert str(failure) == "TLS failed (sslv3 alert handshake failure)"


@pytest.mark.parametrize(
    ("exc", "cause"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), Cause.RESET),
        (BrokenPipeError(errno.EPIPE, "pipe"), Cause.RESET),
        (http.client.RemoteDisconnected("closed"), Cause.BROKEN),
        (OSError(errno.EHOSTUNREACH, "no route"), Cause.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "no route"), Cause.UNREACHABLE),
        (OSError(errno.EIO, "?"), Cause.ERROR),
    ],
)
def test_why_there_is_no_response_is_told_apart(exc: Exception, cause: Cause) -> None:
    failure = Peer.at("https://vault.example", Tls(None)).explain(exc)
    assert (failure.cause, failure.final, failure.misconfigured) == (cause, False, False)


def test_an_interrupt_while_connecting_closes_the_socket_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[socket.socket] = []

    def interrupted(connection: socket.socket, _: object) -> None:
        tried.append(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(network.Socket, "connect", interrupted)
    with within(Deadline(10)), pytest.raises(KeyboardInterrupt):
        network.connected("127.0.0.1", 1)
    assert [connection.fileno() for connection in tried] == [-1]


def test_an_interrupt_while_a_proxy_connects_closes_the_socket_and_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[socket.socket] = []

    def interrupted(connection: socket.socket, *_: object) -> None:
        opened.append(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(tunnels, "_open", interrupted)
    with socket.create_server(("127.0.0.1", 0)) as server, within(Deadline(10)):
        proxy = Proxy("127.0.0.1", server.getsockname()[1])
        with pytest.raises(KeyboardInterrupt):
            Peer.at("https://vault.example", Tls(None), proxy).connect()
    assert [connection.fileno() for connection in opened] == [-1]


class _TakenByAnother(list[object]):
    """Idle workers of which another thread takes the last one between the look and the grasp."""

    def __bool__(self) -> bool:
        return True


def test_a_call_runs_although_another_thread_takes_the_last_idle_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocking, "_idle", idle := _TakenByAnother())
    assert blocking.call("peer test", lambda: 7, 10) == 7
    assert len(idle) == 1


class _Dead:
    """A worker whose thread a fork has left behind."""

    thread = threading.Thread()  # never started, so not alive


def test_a_worker_without_a_living_thread_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = _Dead()
    idle: list[object] = [dead]
    monkeypatch.setattr(blocking, "_idle", idle)
    assert blocking.call("peer test", lambda: 7, 10) == 7
    assert len(idle) == 1
    assert dead not in idle


def test_the_query_ends_with_a_non_blocking_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"query")
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert streams.read_query(100, Deadline(60)) == b"query"
