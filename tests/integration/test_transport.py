"""How Vault is reached: TLS, sockets, several nodes, redirects, and what is waited for."""

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


class Asker:
    """Makes transports, closes them at the end, and asks for something that every Vault answers."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self.slept: list[float] = []

    def transport(self, *addresses: str, **options: Any) -> Transport:
        made = Transport(addresses, ServerClock(), timeout=2, sleep=self.slept.append, **options)
        self._closing.callback(made.close)
        return made

    def ask(self, *addresses: str, seconds: float = 5, tls: dict[str, str] | None = None) -> Response:
        return self.transport(*addresses, **(tls or {})).request(
            "GET", "/v1/sys/seal-status", {}, None, Deadline(seconds)
        )


@pytest.fixture
def asker() -> Iterator[Asker]:
    with ExitStack() as closing:
        yield Asker(closing)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def doors(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors_of_openbao(files, tmp_path_factory.mktemp("socket")) as made:
        yield made


def test_tls_is_verified_against_the_named_ca(asker: Asker, doors: Doors, files: dict[str, str]) -> None:
    assert asker.ask(doors["tls"], tls={"ca_file": files["ca"]}).status == 200


def test_a_connection_with_tls_is_used_again(
    asker: Asker, doors: Doors, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def counted(context: object, socket: object, **how: Any) -> object:
        made.append(socket)
        return wrap(context, socket, **how)

    wrap: Any = ssl.SSLContext.wrap_socket
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", counted)
    transport = asker.transport(doors["tls"], ca_file=files["ca"])
    for _ in range(3):
        answer = transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert (answer.status, len(made)) == (200, 1)


@pytest.mark.parametrize("ca", ["other", None])
def test_an_unknown_ca_ends_the_call_at_once(
    asker: Asker, doors: Doors, files: dict[str, str], ca: str | None
) -> None:
    with pytest.raises(StoreError, match="does not verify") as caught:
        asker.ask(doors["tls"], tls={"ca_file": files[ca]} if ca else None)
    assert (asker.slept, type(caught.value)) == ([], StoreSettingsError)
    assert "VAULT_CACERT" in caught.value.hint


def test_a_client_certificate_is_shown_if_there_is_one(
    asker: Asker, doors: Doors, files: dict[str, str]
) -> None:
    own = {"ca_file": files["ca"], "client_cert": files["client"], "client_key": files["client-key"]}
    assert asker.ask(doors["mutual"], tls=own).status == 200
    with pytest.raises(StoreSettingsError, match="does not accept our TLS client certificate") as caught:
        asker.ask(doors["mutual"], tls={"ca_file": files["ca"]})
    assert "VAULT_CLIENT_CERT" in caught.value.hint
    assert asker.slept == []


def test_a_certificate_file_that_is_none_is_named(asker: Asker, doors: Doors, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(StoreError, match="PEM") as caught:
        asker.ask(doors["tls"], tls={"ca_file": str(tmp_path / "no.pem")})
    assert not caught.value.retryable


def test_a_unix_socket_is_an_address_too(asker: Asker, doors: Doors, tmp_path: Path) -> None:
    assert asker.ask(doors["unix"]).status == 200
    with pytest.raises(StoreError, match="refused"):
        asker.ask(f"unix://{tmp_path}/nobody.sock")


def test_connections_are_kept_and_a_closed_one_is_made_anew(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = asker.transport(proxy.address)
        for _ in range(3):
            transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert proxy.connections() == 1
        proxy.close_connections()
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(5))
        assert (proxy.connections(), asker.slept) == (2, [])


def test_a_node_that_is_down_is_passed_over(asker: Asker, bao: Vault) -> None:
    assert asker.ask(f"http://127.0.0.1:{own_port()}", bao.address).status == 200


def test_a_node_that_is_sealed_is_passed_over(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 503, body=b'{"errors":["Vault is sealed"]}', when="before", times=99)
        assert asker.ask(proxy.address, bao.address).status == 200
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [(503, b'{"errors":["Vault is sealed"]}', "sealed"), (501, b"{}", "not initialized")],
)
def test_what_needs_a_person_is_told_at_once(
    asker: Asker, bao: Vault, status: int, body: bytes, message: str
) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        with pytest.raises(StoreError, match=message) as caught:
            asker.ask(proxy.address)
    assert (asker.slept, type(caught.value), caught.value.retryable) == ([], StoreError, True)


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
def test_what_does_not_respond_in_vaults_form_is_not_vault(
    asker: Asker, bao: Vault, status: int, body: bytes
) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        with pytest.raises(StoreSettingsError, match=rf"is not Vault \(status {status}") as caught:
            asker.ask(proxy.address)
        assert (asker.slept, caught.value.retryable) == ([], False)
        assert asker.ask(proxy.address, bao.address).status == 200  # another node may be one
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
def test_what_vault_itself_responds_is_taken(asker: Asker, bao: Vault, status: int, body: bytes) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, status, body=body, when="before", times=99)
        assert asker.ask(proxy.address).status == status


def test_a_html_page_with_a_5xx_is_an_outage(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 502, body=HTML, when="before", times=1)
        assert asker.ask(proxy.address).status == 200


def test_a_load_balancers_page_is_an_outage_that_is_told_as_such(asker: Asker, bao: Vault) -> None:
    for status in (500, 501, 503):
        with FaultProxy(bao.address) as proxy:
            proxy.answer(lambda _: True, status, body=HTML + b"sealed", when="before", times=10**6)
            with pytest.raises(StoreError, match=f"status {status} with an HTML page") as caught:
                asker.ask(proxy.address, seconds=0.2)
        assert caught.value.retryable


def test_nobody_listening_is_given_up_long_before_the_deadline(asker: Asker) -> None:
    started = time.monotonic()
    with pytest.raises(StoreError, match="connection refused") as caught:
        asker.ask(f"http://127.0.0.1:{own_port()}", seconds=300)
    assert caught.value.retryable
    assert time.monotonic() - started < 60
    assert 1 < len(asker.slept) < 10


def test_a_name_that_does_not_resolve_is_told_at_once(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a resolver would be outside of this machine
    with pytest.raises(StoreError, match="does not resolve"):
        asker.ask("http://vault.example")
    assert asker.slept == []


def test_a_server_that_never_answers_is_given_up_at_the_deadline(asker: Asker) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(StoreError, match="no answer in time"),
    ):
        asker.ask(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)


def test_a_deadline_that_passes_during_a_pause_does_not_hide_the_cause() -> None:
    clock = FakeClock(0.0)
    transport = Transport(
        [f"http://127.0.0.1:{own_port()}"], ServerClock(), timeout=5, sleep=lambda _: clock.sleep(60)
    )
    with pytest.raises(StoreError, match="connection refused"):
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(50, clock.now))
    with pytest.raises(StoreError, match="deadline passed before"):
        transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(0))


def test_429_is_waited_for_as_told_and_called_busy_if_it_lasts(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 429, when="before", times=2, retry_after=1)
        assert asker.ask(proxy.address).status == 200
        assert [pause >= 1 for pause in asker.slept] == [True, True]
        proxy.answer(lambda _: True, 429, when="before", times=99, retry_after=60)
        with pytest.raises(StoreBusyError):
            asker.ask(proxy.address)


def test_a_redirect_to_a_named_node_is_followed(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as standby, FaultProxy(bao.address) as third:
        standby.answer(
            lambda _: True, 307, when="before", times=99, location=f"{bao.address}/v1/sys/seal-status"
        )
        assert asker.ask(standby.address, third.address, bao.address).status == 200
        assert (len(standby.requests), len(third.requests)) == (1, 0)


def test_a_redirect_to_anybody_else_is_not_followed_with_the_vault_token(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as standby, FaultProxy(bao.address) as stranger:
        standby.answer(
            lambda _: True, 307, when="before", times=99, location=f"{stranger.address}/v1/sys/seal-status"
        )
        with pytest.raises(StoreError, match="redirects") as caught:
            asker.ask(standby.address, seconds=0.5)
    assert stranger.requests == []
    assert "VAULT_ADDR" in caught.value.hint


def test_what_must_not_be_repeated_is_sent_once(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.reset(lambda _: True, when="after", times=1)
        with pytest.raises(StoreError, match="reset the connection"):
            asker.transport(proxy.address).request(
                "POST", "/v1/auth/approle/login", {}, b"{}", Deadline(5), repeatable=False
            )
    assert len(proxy.requests) == 1


def test_an_endless_answer_is_cut_off(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 200, body=b"x" * (5 * 1024 * 1024), when="before", times=1)
        with pytest.raises(TransportError):
            asker.transport(proxy.address).once("GET", "/v1/sys/seal-status", {}, None, 5)


def test_reads_after_a_write_say_what_they_must_have_seen(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = asker.transport(proxy.address)
        transport.index = "what-the-last-holder-of-the-lock-left"
        assert transport.once("GET", "/v1/sys/seal-status", {}, None, 5).status == 200
        assert b"X-Vault-Index: what-the-last-holder-of-the-lock-left" in proxy.heads[0]
        assert b"X-Vault-Inconsistent: forward-active-node" in proxy.heads[0]
        # OpenBao answers 400 to an index that is none: it is dropped, and the read repeated.
        assert b"X-Vault-Index" not in proxy.heads[1]
        assert transport.index is None


def test_an_index_is_kept_where_the_read_is_refused_without_it_too(asker: Asker, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 400, when="before", times=2)
        transport = asker.transport(proxy.address)
        transport.index = "kept"
        assert transport.once("GET", "/v1/sys/seal-status", {}, None, 5).status == 400
        assert (len(proxy.heads), transport.index) == (2, "kept")


@pytest.mark.parametrize("place", ["http://[::1", "//[", "\xe9"])
def test_a_redirect_to_what_is_no_url_is_a_redirect(asker: Asker, bao: Vault, place: str) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 307, when="before", times=1, location=place)
        assert asker.ask(proxy.address).status == 200


@pytest.mark.parametrize("good_for", [0, 1, 2])
def test_a_request_that_no_longer_holds_is_not_sent_again(bao: Vault, asker: Asker, good_for: int) -> None:
    still = iter([True] * (good_for + 1) + [False])
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 429, when="before", times=2)
        transport = asker.transport(proxy.address)

        def ask() -> Response:
            return transport.request(
                "GET", "/v1/sys/seal-status", {}, None, Deadline(5), in_time=lambda: next(still)
            )

        if good_for == 2:
            assert ask().status == 200
        else:
            with pytest.raises(OutdatedError):
                ask()
        assert len(proxy.requests) == good_for + 1


def test_a_read_on_a_kept_connection_that_closes_without_a_response_is_asked_again_on_a_new_one(
    asker: Asker,
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
        transport = asker.transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
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
