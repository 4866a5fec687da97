"""Connections to Vault: TLS, sockets, several nodes, redirects, and which requests are sent again."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeClock
from support.fault_proxy import FaultProxy
from support.ports import own_port
from support.tls import Doors, doors_of_openbao, pki
from support.vault import Vault

from vault_plugin.errors import StoreBusyError, StoreError, StoreSettingsError
from vault_plugin.network import sockets as network
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.connections import Response
from vault_plugin.vault.transport import OutdatedError, Transport, TransportError


class Client:
    """Makes transports, closes them at the end, and sends a request that every Vault accepts."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self.slept: list[float] = []

    def transport(self, *addresses: str, **options: Any) -> Transport:
        made = Transport(addresses, ServerClock(), timeout=2, sleep=self.slept.append, **options)
        self._closing.callback(made.close)
        return made

    def get(self, *addresses: str, seconds: float = 5, tls: dict[str, str] | None = None) -> Response:
        return self.transport(*addresses, **(tls or {})).request(
            "GET", "/v1/sys/seal-status", {}, None, Deadline(seconds)
        )


@pytest.fixture
def client() -> Iterator[Client]:
    with ExitStack() as closing:
        yield Client(closing)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def doors(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors_of_openbao(files, tmp_path_factory.mktemp("socket")) as made:
        yield made


def test_tls_is_verified_against_the_named_ca(client: Client, doors: Doors, files: dict[str, str]) -> None:
    assert client.get(doors["tls"], tls={"ca_file": files["ca"]}).status == 200


def test_a_connection_with_tls_is_used_again(
    client: Client, doors: Doors, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def counted(context: object, socket: object, **how: Any) -> object:
        made.append(socket)
        return wrap(context, socket, **how)

    wrap: Any = ssl.SSLContext.wrap_socket
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", counted)
    transport = client.transport(doors["tls"], ca_file=files["ca"])
    for _ in range(3):
        answer = transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert (answer.status, len(made)) == (200, 1)


@pytest.mark.parametrize("ca", ["other", None])
def test_an_unknown_ca_ends_the_call_at_once(
    client: Client, doors: Doors, files: dict[str, str], ca: str | None
) -> None:
    with pytest.raises(StoreError, match="does not verify") as caught:
        client.get(doors["tls"], tls={"ca_file": files[ca]} if ca else None)
    assert (client.slept, type(caught.value)) == ([], StoreSettingsError)
    assert "VAULT_CACERT" in caught.value.hint


def test_a_client_certificate_is_shown_if_there_is_one(
    client: Client, doors: Doors, files: dict[str, str]
) -> None:
    own = {"ca_file": files["ca"], "client_cert": files["client"], "client_key": files["client-key"]}
    assert client.get(doors["mutual"], tls=own).status == 200
    with pytest.raises(StoreSettingsError, match="rejects the TLS client certificate") as caught:
        client.get(doors["mutual"], tls={"ca_file": files["ca"]})
    assert "VAULT_CLIENT_CERT" in caught.value.hint
    assert client.slept == []


def test_an_invalid_certificate_file_is_named(client: Client, doors: Doors, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(StoreError, match="PEM") as caught:
        client.get(doors["tls"], tls={"ca_file": str(tmp_path / "no.pem")})
    assert not caught.value.retryable


def test_a_unix_socket_is_an_address_too(client: Client, doors: Doors, tmp_path: Path) -> None:
    assert client.get(doors["unix"]).status == 200
    with pytest.raises(StoreError, match="there is no socket at that path"):
        client.get(f"unix://{tmp_path}/nobody.sock")


def test_connections_are_kept_and_a_closed_one_is_replaced(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = client.transport(proxy.address)
        for _ in range(3):
            transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert proxy.connections() == 1
        proxy.close_connections()
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert (proxy.connections(), client.slept) == (2, [])


def test_a_node_that_is_down_is_skipped(client: Client, bao: Vault) -> None:
    assert client.get(f"http://127.0.0.1:{own_port()}", bao.address).status == 200


def test_a_node_that_is_sealed_is_skipped(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 503, body=b'{"errors":["Vault is sealed"]}', when="before", times=99)
        assert client.get(proxy.address, bao.address).status == 200
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [(503, b'{"errors":["Vault is sealed"]}', "sealed"), (501, b"{}", "not initialized")],
)
def test_a_state_that_needs_an_operator_is_reported_at_once(
    client: Client, bao: Vault, status: int, body: bytes, message: str
) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        with pytest.raises(StoreError, match=message) as caught:
            client.get(proxy.address)
    assert (client.slept, type(caught.value), caught.value.retryable) == ([], StoreError, True)


HTML = b"<!doctype html><title>Sign in</title>"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, HTML),
        (200, b""),
        (200, b"[]"),
        (200, b"[" * 30000),
        (403, HTML),
        (404, HTML),
        (404, b""),
        (404, b'{"message": "no route"}'),
        (404, b'"errors"'),
        (407, b"Proxy authentication required"),
        (451, b"\xff"),
    ],
    ids=range(11),
)
def test_a_response_that_is_not_in_vaults_form_is_not_vaults(
    client: Client, bao: Vault, status: int, body: bytes
) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        with pytest.raises(StoreSettingsError, match=rf"is not Vault \(status {status}") as caught:
            client.get(proxy.address)
        assert (client.slept, caught.value.retryable) == ([], False)
        assert client.get(proxy.address, bao.address).status == 200  # another node may be one
    assert "VAULT_ADDR" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (204, b""),
        (400, b""),
        (404, b'{"errors":[]}'),
        (404, b'{"data":{"data":null}}'),
        (403, b'{"errors":["1 error occurred"]}\n'),
        (405, b'{"errors":["unsupported"]}'),
    ],
)
def test_a_response_of_vault_is_accepted(client: Client, bao: Vault, status: int, body: bytes) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        assert client.get(proxy.address).status == status


def test_a_html_page_with_a_5xx_is_an_outage(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 502, body=HTML, when="before", times=1)
        assert client.get(proxy.address).status == 200


def test_a_load_balancers_page_is_an_outage_and_is_reported_as_such(client: Client, bao: Vault) -> None:
    for status in (500, 501, 503):
        with FaultProxy(bao.address) as proxy:
            proxy.answer(lambda _: True, status, body=HTML + b"sealed", when="before", times=10**6)
            with pytest.raises(StoreError, match=f"status {status} with an HTML page") as caught:
                client.get(proxy.address, seconds=1)
        assert caught.value.retryable


def test_without_a_listener_the_request_fails_long_before_the_deadline(client: Client) -> None:
    started = time.monotonic()
    with pytest.raises(StoreError, match="connection refused") as caught:
        client.get(f"http://127.0.0.1:{own_port()}", seconds=300)
    assert caught.value.retryable
    assert time.monotonic() - started < 60
    assert 1 < len(client.slept) < 10


def test_a_name_that_does_not_resolve_is_reported_at_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a resolver would be outside of this machine
    with pytest.raises(StoreError, match="does not resolve"):
        client.get("http://vault.example")
    assert client.slept == []


def test_a_server_that_never_responds_fails_the_request_at_the_deadline(client: Client) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(StoreError, match="no response in time"),
    ):
        client.get(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)


def test_a_deadline_that_one_request_used_up_does_not_hide_its_cause_from_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = Transport([f"http://127.0.0.1:{server.getsockname()[1]}"], ServerClock(), timeout=5)
        with pytest.raises(TransportError):
            transport.once("GET", "/v1/x", {}, None, 0.1)
        with pytest.raises(StoreError, match="no response in time"):
            transport.request("GET", "/v1/x", {}, None, Deadline(0))
        with pytest.raises(StoreError, match="was sent"):
            transport.request("GET", "/v1/x", {}, None, Deadline(0))


def test_a_deadline_that_passes_during_a_delay_does_not_hide_the_cause() -> None:
    clock = FakeClock(0.0)
    transport = Transport(
        [f"http://127.0.0.1:{own_port()}"], ServerClock(), timeout=5, sleep=lambda _: clock.sleep(60)
    )
    with pytest.raises(StoreError, match="connection refused"):
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(50, clock.now))
    with pytest.raises(StoreError, match="deadline passed before"):
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(0))


def test_a_429_is_retried_after_its_retry_after_and_raises_store_busy_if_it_lasts(
    client: Client, bao: Vault
) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 429, when="before", times=2, retry_after=1)
        assert client.get(proxy.address).status == 200
        assert [delay >= 1 for delay in client.slept] == [True, True]
        proxy.answer(lambda _: True, 429, when="before", times=99, retry_after=60)
        with pytest.raises(StoreBusyError):
            client.get(proxy.address)


def test_a_redirect_to_a_named_node_is_followed(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as standby, FaultProxy(bao.address) as third:
        standby.answer(
            lambda _: True, 307, when="before", times=99, location=f"{bao.address}/v1/sys/seal-status"
        )
        assert client.get(standby.address, third.address, bao.address).status == 200
        assert (len(standby.requests), len(third.requests)) == (1, 0)


def test_a_redirect_to_another_host_is_not_followed_with_the_vault_token(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as standby, FaultProxy(bao.address) as outsider:
        standby.answer(
            lambda _: True, 307, when="before", times=99, location=f"{outsider.address}/v1/sys/seal-status"
        )
        with pytest.raises(StoreError, match="redirects") as caught:
            client.get(standby.address, seconds=0.5)
    assert outsider.requests == []
    assert "VAULT_ADDR" in caught.value.hint


def test_a_request_that_is_not_repeatable_is_sent_once(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.reset(lambda _: True, when="after", times=1)
        with pytest.raises(StoreError, match="reset the connection"):
            client.transport(proxy.address).request(
                "POST", "/v1/auth/approle/login", {}, b"{}", Deadline(5), repeatable=False
            )
    assert len(proxy.requests) == 1


def test_an_endless_response_is_cut_off(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 200, body=b"x" * (5 * 1024 * 1024), when="before", times=1)
        with pytest.raises(TransportError):
            client.transport(proxy.address).once("GET", "/v1/sys/seal-status", {}, None, 5)


def test_reads_after_a_write_say_what_they_must_have_seen(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = client.transport(proxy.address)
        transport.index = "what-the-last-holder-of-the-lock-left"
        assert transport.once("GET", "/v1/sys/seal-status", {}, None, 5).status == 200
        assert b"X-Vault-Index: what-the-last-holder-of-the-lock-left" in proxy.heads[0]
        assert b"X-Vault-Inconsistent: forward-active-node" in proxy.heads[0]
        # OpenBao responds with 400 to an invalid index: it is dropped, and the read is sent again.
        assert b"X-Vault-Index" not in proxy.heads[1]
        assert transport.index is None


def test_an_index_is_kept_if_the_read_is_rejected_without_it_too(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 400, when="before", times=2)
        transport = client.transport(proxy.address)
        transport.index = "kept"
        assert transport.once("GET", "/v1/sys/seal-status", {}, None, 5).status == 400
        assert (len(proxy.heads), transport.index) == (2, "kept")


@pytest.mark.parametrize("place", ["http://[::1", "//[", "\xe9"])
def test_a_redirect_to_an_invalid_url_is_a_redirect(client: Client, bao: Vault, place: str) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 307, when="before", times=1, location=place)
        assert client.get(proxy.address).status == 200


@pytest.mark.parametrize("valid_tries", [0, 1, 2])
def test_a_request_that_is_no_longer_valid_is_not_sent_again(
    bao: Vault, client: Client, valid_tries: int
) -> None:
    still = iter([True] * (valid_tries + 1) + [False])
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 429, when="before", times=2)
        transport = client.transport(proxy.address)

        def ask() -> Response:
            return transport.request(
                "GET", "/v1/sys/seal-status", {}, None, Deadline(5), in_time=lambda: next(still)
            )

        if valid_tries == 2:
            assert ask().status == 200
        else:
            with pytest.raises(OutdatedError):
                ask()
        assert len(proxy.requests) == valid_tries + 1


def test_a_read_on_a_kept_connection_that_closes_without_a_response_is_sent_again_on_a_new_one(
    client: Client,
) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    served = []

    def serve(listener: socket.socket) -> None:
        for count in (1, 1):  # responses on a connection; the request after them closes it
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                for number in range(count + 1):
                    while (line := requests.readline()).strip():
                        served.append(line)
                    if number < count:
                        connection.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        transport = client.transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(2):
            assert transport.request("GET", "/v1/x", {}, None, Deadline(30)).status == 200
        transport.close()
        server.join(60)
    assert served.count(b"GET /v1/x HTTP/1.1\r\n") == 3


def test_past_its_limit_a_connection_does_nothing() -> None:
    one, other = socket.socketpair()
    with network.Socket(fileno=one.detach()) as ours, other, network.within(Deadline(0)):
        with pytest.raises(TimeoutError):
            ours.sendall(b"x")
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)


def test_a_request_that_outlives_the_transport_leaves_no_connection(bao: Vault, client: Client) -> None:
    """As one for the renewal of the login may, in a thread of its own."""
    transport = client.transport(bao.address)
    transport.close()
    assert transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5)).status == 200
    assert not any(transport._connections._idle.values())
