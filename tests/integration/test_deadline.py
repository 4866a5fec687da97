"""Every call ends by its deadline, whatever Vault, the endpoint, a name server or a file system does."""

import fcntl
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.cli import World
from support.drip import DRIPS, HEAD, closing, dripping, serving
from support.fakes import ACME, jwt
from support.punctual import PATIENCE, SLACK, assert_every_command_ends
from support.vault import Vault
from support.waiting import until

from vault_plugin.demo.simulator import Simulator
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import BusyError, KlearstackVaultError, SourceError, SourceProtocolError, StoreError
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.network import sockets as network
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.connections import Response
from vault_plugin.vault.retries import TRANSIENT
from vault_plugin.vault.transport import Transport, TransportError


def ask_vault(url: str, seconds: float, timeout: float = 5) -> Response:
    transport = Transport([url], ServerClock(), timeout=timeout)
    try:
        return transport.request("GET", "/v1/sys/seal-status", {}, None, Deadline(seconds))
    finally:
        transport.close()


def ask_endpoint(url: str, seconds: float, timeout: float = 5) -> object:
    source = EndpointSource(url, ServerClock(), timeout=timeout)
    try:
        return source.obtain(ACME, Deadline(seconds))
    finally:
        source.close()


ASKING: dict[str, Callable[..., object]] = {"vault": ask_vault, "endpoint": ask_endpoint}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def drip_the_handshake(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"\x16\x03\x03\x40\x00\x02")  # a TLS record of 16 KB
    while not over.wait(0.1):
        connection.sendall(b"\0")


def test_no_drip_outlasts_the_deadline_and_nothing_is_left_behind() -> None:
    def ask(side: str, url: str, timeout: float) -> tuple[KlearstackVaultError, float]:
        started = time.monotonic()
        with pytest.raises((StoreError, SourceError)) as caught:
            ASKING[side](url, 1, timeout)
        return caught.value, time.monotonic() - started

    with ExitStack() as stack:
        urls = [stack.enter_context(dripping(where)) for where in DRIPS]
        tls = stack.enter_context(serving(drip_the_handshake, at_once=True)).replace("http:", "https:")
        before = threading.active_count(), open_files()
        calls = list(product(ASKING, [*urls, tls], [0.4, 5]))  # tried again and again; once
        with ThreadPoolExecutor(len(calls)) as pool:
            results = list(pool.map(lambda call: ask(*call), calls))
        servers = threading.active_count() - before[0]
    for (error, seconds), call in zip(results, calls, strict=True):
        assert seconds < 1 + SLACK, call
        assert "in time" in str(error)
        assert error.retryable
    assert servers <= 4 * len(calls)  # theirs alone, which end with them
    assert not [one.name for one in threading.enumerate() if one.name.startswith("ThreadPool")]
    until(lambda: open_files() <= before[1])


# tests/long has every command with more of what may drip. Above it is all of that, without processes.
@pytest.mark.parametrize(("side", "where"), [("VAULT_ADDR", "header"), ("KLEARSTACK_URL", "chunk")])
def test_every_command_ends_by_the_deadline_and_gives_the_lock_back(
    kv2: World, side: str, where: str
) -> None:
    assert_every_command_ends(kv2, side, where)


# A connection that closes in the middle of a response


def responses(body: bytes) -> list[bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:], b""))
    return [
        HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        HEAD + b"\r\n" + body,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
        + HEAD
        + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    ]


def prefixes(whole: bytes) -> Iterator[bytes]:
    """Every way to cut it, but for the last chunk's line end, without which nothing is missing."""
    end = len(whole) - (4 if whole.endswith(b"0\r\n\r\n") else 0)
    return (whole[:size] for size in range(end))


@pytest.mark.parametrize("which", range(5))
def test_a_response_of_vault_that_is_cut_anywhere_is_a_broken_connection(which: int) -> None:
    whole = responses('{"data": {"é": "x"}}'.encode())[which]
    todo = [whole, *prefixes(whole), whole]
    cuts = iter(todo)
    with serving(lambda connection, _: connection.sendall(next(cuts))) as url:
        transport = Transport([url], ServerClock(), timeout=5)
        transport.once("GET", "/v1/x", {}, None, 5)
        for _ in todo[1:-1]:
            with pytest.raises(TransportError, match="the connection broke") as caught:
                transport.once("GET", "/v1/x", {}, None, 5)
            assert (caught.value.verdict.ambiguous, caught.value.verdict.weight) == (True, TRANSIENT)
        answer = transport.once("GET", "/v1/x", {}, None, 5)
        assert (answer.status, json.loads(answer.body)) == (200, {"data": {"é": "x"}})
        transport.close()


@pytest.mark.parametrize("which", range(5))
def test_a_response_of_the_endpoint_that_is_cut_anywhere_is_a_broken_connection(which: int) -> None:
    now = int(time.time())
    tokens = {f"{kind}_token": jwt(kind, iat=now, exp=now + 900) for kind in ("access", "refresh")}
    whole = responses(json.dumps(tokens).encode())[which]
    todo = [*list(prefixes(whole))[::9], whole]
    cuts = iter(todo)
    with serving(lambda connection, _: connection.sendall(next(cuts))) as url:
        source = EndpointSource(url, ServerClock(), timeout=5, sleep=lambda _: None)
        tries = 0
        while len(todo) - tries > 4:
            with pytest.raises(SourceError, match="broke off the connection") as caught:
                source.obtain(ACME, Deadline(PATIENCE), fallback=True)
            assert (type(caught.value), caught.value.retryable) == (SourceError, True)
            tries += 4
        assert source.obtain(ACME, Deadline(PATIENCE)).access.expires_at == now + 900
        source.close()


def test_what_is_whole_but_no_json_stays_a_breach_of_the_protocol() -> None:
    for body in (b"<html></html>", b"{} x", b"\xff{}", b"[" * 30000):
        with closing(HEAD + b"\r\n" + body) as url, pytest.raises(SourceProtocolError):
            ask_endpoint(url, PATIENCE)


def test_what_follows_a_response_is_not_taken_for_the_next_one() -> None:
    answers = iter([b"first", b"second"])
    read, forged = threading.Event(), threading.Event()

    def answer_twice(connection: socket.socket, over: threading.Event) -> None:
        body = next(answers)
        one = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        connection.sendall(one)
        assert read.wait(PATIENCE)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        forged.set()
        over.wait(PATIENCE)

    with serving(answer_twice) as url:
        transport = Transport([url], ServerClock(), timeout=5)
        assert transport.once("GET", "/v1/x", {}, None, 5).body == b"first"
        read.set()
        assert forged.wait(PATIENCE)
        assert transport.once("GET", "/v1/x", {}, None, 5).body == b"second"
        transport.close()


# The wrong scheme


@pytest.mark.parametrize("side", ASKING)
@pytest.mark.parametrize("server", ["bao", "simulator"])
def test_https_to_a_port_of_plain_http_is_told_at_once(bao: Vault, side: str, server: str) -> None:
    with Simulator() as simulator:
        url = {"bao": bao.address, "simulator": simulator.url}[server].replace("http:", "https:")
        started = time.monotonic()
        with pytest.raises((StoreError, SourceError), match="it speaks plain HTTP, use http://") as caught:
            ASKING[side](url, PATIENCE)
    assert not caught.value.retryable
    assert time.monotonic() - started < PATIENCE / 5


def own_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def handshake(connection: socket.socket, _: threading.Event) -> None:
    """As many TLS servers do: close without a word if this is no TLS."""
    with own_tls().wrap_socket(connection, server_side=True) as wrapped:
        wrapped.recv(1)


GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
NGINX = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 52\r\n\r\nThe plain HTTP request was sent to HTTPS port (400).\n"
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
TLS_SERVERS: dict[str, Callable[[socket.socket, threading.Event], Any]] = {
    "Go": lambda connection, _: connection.sendall(GO),
    "nginx": lambda connection, _: connection.sendall(NGINX),
    "alert": lambda connection, _: connection.sendall(ALERT),
    "closing": handshake,
}


@pytest.mark.parametrize("side", ASKING)
@pytest.mark.parametrize("server", TLS_SERVERS)
def test_http_to_a_port_of_tls_is_told_at_once(side: str, server: str) -> None:
    with serving(TLS_SERVERS[server], at_once=server == "closing") as url:
        started = time.monotonic()
        with pytest.raises((StoreError, SourceError), match="it speaks TLS, use https://") as caught:
            ASKING[side](url, PATIENCE)
    assert not caught.value.retryable
    assert time.monotonic() - started < PATIENCE / 5


@pytest.mark.parametrize("side", ASKING)
def test_a_server_that_just_closes_is_not_said_to_speak_anything(side: str) -> None:
    for scheme in ("http:", "https:"):
        with closing(b"") as url, pytest.raises((StoreError, SourceError)) as caught:
            ASKING[side](url.replace("http:", scheme), 1)
        assert "speaks" not in str(caught.value)
        assert caught.value.retryable


# Names


def test_a_name_server_that_hangs_is_given_up_and_leaves_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(host: str, *_: object, **options: Any) -> list[Any]:
        if options.get("flags") or not released.wait(PATIENCE):
            raise socket.gaierror
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    before = threading.active_count()
    for ask in ASKING.values():
        started = time.monotonic()
        with pytest.raises((StoreError, SourceError), match="in time"):
            ask("http://slow.example", 0.5, 0.2)
        assert time.monotonic() - started < 0.5 + SLACK
    assert threading.active_count() <= before + 1
    released.set()


def test_an_address_that_swallows_all_leaves_time_for_the_next(
    bao: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(bao.address.rpartition(":")[2])
    real = network.Socket.connect

    def connect(self: network.Socket, address: Any) -> None:
        if address == ("black.hole", port):
            self.limit_wait()
            time.sleep(self.gettimeout() or 0)
            raise TimeoutError
        real(self, address)

    monkeypatch.setattr(network.Socket, "connect", connect)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in ("black.hole", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert ask_vault("http://vault.example", 20, 2).status == 200


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_name_that_can_be_none_does_not_resolve(host: str) -> None:
    with pytest.raises(StoreError, match="does not resolve"):
        ask_vault(f"http://{host}", PATIENCE)


# Files


@pytest.mark.parametrize(
    "variable", ["VAULT_TOKEN_FILE", "KLEARSTACK_USER_ID_FILE", "KLEARSTACK_DEADLINE_FILE"]
)
def test_a_fifo_that_nobody_writes_to_is_named_at_the_deadline(
    kv2: World, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    own = {variable.removesuffix("_FILE"): None, variable: str(fifo), "KLEARSTACK_DEADLINE": "0.5"}
    if variable == "KLEARSTACK_DEADLINE_FILE":
        own = {variable: str(fifo)}
        writer = threading.Thread(target=lambda: fifo.write_text("30\n"))
        writer.start()
        assert kv2.run("get", **own).returncode == 0
        writer.join()
        return
    started = time.monotonic()
    done = kv2.run("get", **own)
    assert time.monotonic() - started < PATIENCE  # and not 60 s, as without a setting
    assert (done.returncode, str(fifo) in done.stderr) == (78, True)


def test_what_a_slow_file_takes_is_gone_from_the_deadline(kv2: World, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("w") as file:
            time.sleep(3)
            file.write(kv2.vault.root_token + "\n")

    writer = threading.Thread(target=write)
    writer.start()
    own = {"VAULT_TOKEN": None, "VAULT_TOKEN_FILE": str(fifo), "KLEARSTACK_DEADLINE": "9"}
    with dripping("body") as url:
        started = time.monotonic()
        done = kv2.run("get", **own | {"VAULT_ADDR": url})
        assert time.monotonic() - started < 3 + 9
    writer.join()
    assert done.returncode == 69


def test_a_vault_that_never_responds_is_the_cause_also_before_the_requests_own_timeout(kv2: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        done = kv2.run("get", VAULT_ADDR=f"http://127.0.0.1:{port}", KLEARSTACK_DEADLINE="1")
    assert (done.returncode, "no response in time" in done.stderr) == (69, True)
    assert "was sent" not in done.stderr


def test_a_ca_file_that_hangs_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    with closing(b"") as url:
        tls = url.replace("http:", "https:")
        with pytest.raises(StoreError, match="in time"):
            Transport([tls], ServerClock(), timeout=0.2, ca_file=str(tmp_path / "ca.pem")).request(
                "GET", "/v1/x", {}, None, Deadline(0.5)
            )
    (tmp_path / "ca.pem").open("w").close()  # and the thread ends


# The lock folder


class SlowFolder:
    """A file system on which one call hangs until `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.released = threading.Event()
        self.done = threading.Event()
        real = getattr(module, name)

        def slow(*arguments: Any, **options: Any) -> Any:
            assert self.released.wait(PATIENCE)
            try:
                return real(*arguments, **options)
            finally:
                self.done.set()

        monkeypatch.setattr(module, name, slow)


@pytest.mark.parametrize(
    ("module", "name"), [(fcntl, "flock"), (Path, "mkdir"), (Path, "lstat"), (os, "open"), (os, "pread")]
)
def test_a_lock_folder_that_hangs_is_named_at_the_deadline_and_locked_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    locks, files = SingleFlight(str(tmp_path / "locks")), open_files()
    with locks.lock("key", Deadline(5)):
        pass
    with monkeypatch.context() as patch:
        slow = SlowFolder(patch, module, name)
        for _ in range(3):
            started = time.monotonic()
            with (
                pytest.raises(BusyError, match=f"lock folder {tmp_path}/locks did not respond") as caught,
                locks.lock("key", Deadline(0)),
            ):
                pytest.fail("locked")
            assert time.monotonic() - started < 0.5 + SLACK
            assert (caught.value.retryable, "KLEARSTACK_LOCK_DIR" in caught.value.hint) == (True, True)
        slow.released.set()
        assert slow.done.wait(PATIENCE)
    with locks.lock("key", Deadline(5)):  # as soon as the folder responds again
        pass
    assert open_files() <= files


@pytest.mark.parametrize(("module", "name"), [(os, "close"), (os, "pwrite")])
def test_a_lock_that_cannot_be_given_back_at_once_is_given_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    locks = SingleFlight(str(tmp_path / "locks"))
    with monkeypatch.context() as patch:
        started = time.monotonic()
        with locks.lock("key", Deadline(5)) as handle:
            slow = SlowFolder(patch, module, name)
            handle.write_memo("memo")
        assert time.monotonic() - started < 0.5 + SLACK
        slow.released.set()
        assert slow.done.wait(PATIENCE)
    with locks.lock("key", Deadline(5)) as handle:
        assert handle.memo == "memo"


def test_a_memo_that_finds_no_room_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    locks = SingleFlight(str(tmp_path / "locks"))
    with locks.lock("key", Deadline(5)) as handle:
        monkeypatch.setattr(os, "pwrite", full)
        handle.write_memo("memo")
    with locks.lock("key", Deadline(5)) as handle:
        assert handle.memo is None


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with SingleFlight(str(tmp_path / "locks")).lock("key", Deadline(5)) as handle:
        assert "No locks available" in str(handle.unlocked)  # the caller warns, or fails on KV v1


# Past the deadline


def test_past_the_deadline_nothing_begins() -> None:
    asked: list[str] = []
    with serving(lambda *_: asked.append("asked")) as url:
        for side, ask in ASKING.items():
            with pytest.raises((StoreError, SourceError), match="deadline passed"):
                ask(url, 0)
            assert asked == [], side
