"""What becomes of each answer the endpoint may give: the exit codes of docs/errors.md, on a real HTTP server."""

import http.server
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import pytest
import trustme
from support.fakes import ACME, FakeClock, jwt
from support.ports import own_port

from vault_plugin.demo.simulator import Simulator
from vault_plugin.endpoint.client import EndpointSource
from vault_plugin.errors import (
    Failure,
    KlearstackVaultError,
    ParameterMissingError,
    SourceBusyError,
    SourceError,
    SourceProtocolError,
    SourceRefusedError,
    SourceSettingsError,
    TokenError,
    UserMismatchError,
)
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, TokenSet


def obtain(
    url: str,
    *,
    seconds: float = 20,
    timeout: float = 5,
    ca_file: str | None = None,
    slept: list[float] | None = None,
    fallback: bool = False,
) -> TokenSet:
    """Mint at that URL; the pauses between tries take no time, but count as if they did."""
    slept = [] if slept is None else slept
    source = EndpointSource(url, ServerClock(), timeout=timeout, ca_file=ca_file, sleep=slept.append)
    return source.obtain(ACME, Deadline(seconds, lambda: time.monotonic() + sum(slept)), fallback=fallback)


@contextmanager
def endpoint(fault: str = "", fault_count: int | None = None) -> Iterator[Simulator]:
    with Simulator(fault=fault, fault_count=fault_count) as simulator:
        yield simulator


def test_both_tokens_and_the_release_version_are_taken() -> None:
    with endpoint() as simulator:
        pair = obtain(simulator.url)
        assert {token.value.reveal() for token in pair.tokens} == set(simulator.issued)
    assert (pair.release_version, pair.access.user_id) == ("7.8.9", "26")
    assert pair.access.issued_at is not None
    assert pair.access.expires_at - pair.access.issued_at == 900


@pytest.mark.parametrize("fault", ["float-exp", "no-jti"])
def test_what_the_rfc_allows_is_accepted(fault: str) -> None:
    with endpoint(fault) as simulator:
        assert obtain(simulator.url).access.expires_at > time.time()


def test_tokens_of_another_user_are_refused_or_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with endpoint("another-user") as simulator:
        with pytest.raises(UserMismatchError, match="names another user") as caught:
            obtain(simulator.url)
        assert "set --on-user-mismatch (KLEARSTACK_ON_USER_MISMATCH) to warn" in caught.value.hint
        assert caplog.records == []
        source = EndpointSource(simulator.url, ServerClock(), timeout=5, accept_other_users=True)
        assert source.obtain(ACME, Deadline(5)).access.user_id == "-1"
    assert ["names another user" in record.message for record in caplog.records] == [True]


class Minting(http.server.BaseHTTPRequestHandler):
    """Answers 200 with tokens of these claims; `sent` are the heads of the requests."""

    claims: ClassVar[dict[Kind, dict[str, object]]]
    heads: ClassVar[list[dict[str, str]]]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heads.append({name.lower(): text for name, text in self.headers.items()})
        body = json.dumps({f"{kind}_token": jwt(kind, **self.claims[kind]) for kind in Kind}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for number in (1, 2):
            self.send_header("Set-Cookie", f"sessionid{number}=s; Path=/; Domain=127.0.0.1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def minting(
    access: dict[str, object] | None = None, refresh: dict[str, object] | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its URL, and the heads of the requests that it gets. Claims not given are those of a good token."""
    good: dict[str, object] = {"iat": int(time.time()), "exp": int(time.time()) + 900}
    claims = {Kind.ACCESS: good | (access or {}), Kind.REFRESH: good | (refresh or {})}
    handler: type[Minting] = type("Fresh", (Minting,), {"claims": claims, "heads": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.heads
        server.shutdown()


@pytest.mark.parametrize("claim", [27, "27", "", True, [26], {"id": 26}, 26.5], ids=repr)
@pytest.mark.parametrize("kind", Kind)
def test_a_claim_that_is_not_the_user_asked_for_is_a_mismatch_in_either_token(
    kind: Kind, claim: object
) -> None:
    with minting(**{kind.value: {"user_id": claim}}) as (url, _), pytest.raises(UserMismatchError):
        obtain(url)


@pytest.mark.parametrize("claim", [26, "26", "026", 26.0, None], ids=repr)
def test_a_claim_that_may_be_the_user_asked_for_is_none(claim: object) -> None:
    with minting({"user_id": claim}, {"user_id": claim}) as (url, _):
        assert obtain(url).access.names(ACME.user_id)


# Claims by seconds from when the token is issued.
NOW_AND_THEN = {
    "10 years ahead": {"iat": 10 * 365 * 86400, "exp": 11 * 365 * 86400},
    "10 years ahead, with a short life": {"iat": 10 * 365 * 86400},
    "after it expires": {"iat": 901},
    "2 minutes ahead": {"iat": 120},
}


@pytest.mark.parametrize("ahead", NOW_AND_THEN.values(), ids=NOW_AND_THEN)
@pytest.mark.parametrize("kind", Kind)
def test_a_token_issued_in_the_future_is_refused(kind: Kind, ahead: dict[str, int]) -> None:
    claims: dict[str, object] = {name: int(time.time()) + seconds for name, seconds in ahead.items()}
    with minting(**{kind.value: claims}) as (url, _), pytest.raises(TokenError, match="iat") as caught:
        obtain(url)
    assert type(caught.value) is TokenError


def test_the_future_begins_60_seconds_ahead_of_the_clock_that_is_furthest_on() -> None:
    for iat, ahead, taken in ((45, 0, True), (120, 0, False), (120, 100, True), (3600, 3600, True)):
        with minting({"iat": int(time.time()) + iat, "exp": int(time.time()) + 7200}) as (url, _):
            source = EndpointSource(
                url,
                ServerClock(),
                timeout=5,
                latest=lambda ahead=ahead: time.time() + ahead,  # type: ignore[misc]
            )
            if taken:
                source.obtain(ACME, Deadline(5))
            else:
                with pytest.raises(TokenError):
                    source.obtain(ACME, Deadline(5))


def test_a_token_that_does_not_say_when_it_was_issued_was_issued_now() -> None:
    with minting({"iat": None}, {"iat": None}) as (url, _):
        for token in obtain(url).tokens:
            assert token.issued_at == pytest.approx(time.time(), abs=5)


def test_the_token_says_which_endpoint_issued_it() -> None:
    with minting() as (url, _):
        port = url.rpartition(":")[2]
        assert {token.issued_by for token in obtain(f"HTTP://127.0.0.1:{port}").tokens} == {url}


def test_no_state_passes_from_one_request_to_the_next_but_the_connection() -> None:
    with minting() as (url, heads):
        source = EndpointSource(url, ServerClock(), timeout=5)
        for _ in range(3):
            source.obtain(ACME, Deadline(5))
    assert len(heads) == 3
    assert all(head == heads[0] for head in heads)
    assert not {"cookie", "cookie2", "authorization", "referer", "origin"} & set(heads[0])


def test_an_access_token_that_outlives_its_refresh_token_is_taken_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Simulator(access_ttl=100, refresh_ttl=50) as simulator:
        obtain(simulator.url)
    assert "outlives its refresh token" in caplog.text


AT_ONCE = {
    "parameter-missing": ParameterMissingError,
    "400": SourceRefusedError,
    "401": SourceRefusedError,
    "403": SourceRefusedError,
    "404": SourceRefusedError,
    "redirect": SourceRefusedError,
    "not-json": SourceProtocolError,
    "html": SourceProtocolError,
    "array": SourceProtocolError,
    "no-access-token": SourceProtocolError,
    "no-refresh-token": SourceProtocolError,
    "empty-access-token": SourceProtocolError,
    "empty-refresh-token": SourceProtocolError,
    "oversized": SourceProtocolError,
    "documented": TokenError,
    "no-exp": TokenError,
    "bad-exp": TokenError,
    "nan-exp": TokenError,
    "expired": TokenError,
    "wrong-type": TokenError,
}


@pytest.mark.parametrize(("fault", "error"), AT_ONCE.items())
def test_refusals_and_nonsense_are_raised_at_once(fault: str, error: type[KlearstackVaultError]) -> None:
    with endpoint(fault) as simulator, pytest.raises(error) as caught:
        obtain(simulator.url)
    assert simulator.requests == 1
    assert type(caught.value) is error
    assert not caught.value.retryable
    assert caught.value.__cause__ is None
    assert not any(token in str(caught.value) + caught.value.hint for token in simulator.issued)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(fault, SourceError) for fault in ("500", "502", "503", "504", "reset", "truncated")]
    + [("429", SourceBusyError)],
)
def test_what_may_pass_is_tried_for_ten_seconds_and_then_unavailable(
    fault: str, error: type[SourceError]
) -> None:
    slept: list[float] = []
    with endpoint(fault) as simulator, pytest.raises(error) as caught:
        obtain(simulator.url, seconds=30, slept=slept)
    assert simulator.requests == len(slept) + 1 > 2
    assert sum(slept) < 10
    assert (type(caught.value), caught.value.retryable) == (error, True)
    assert not any(token in str(caught.value) + caught.value.hint for token in simulator.issued)


@pytest.mark.parametrize(
    ("fault", "options", "limit", "most"),
    [
        ("503", {}, 10, 1000),
        ("503", {"seconds": 4}, 4, 1000),
        ("503", {"fallback": True}, 3.5, 4),
        ("reset", {"fallback": True}, 3.5, 4),
        ("429", {"fallback": True}, 3.5, 4),
        ("429", {}, 20, 4),
    ],
)
def test_no_further_try_begins_when_the_patience_has_ended(
    fault: str, options: dict[str, Any], limit: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in (0.99, 0.125):  # few long pauses, many short ones
        monkeypatch.setattr(random, "uniform", lambda _, high, share=share: high * share)
        slept: list[float] = []
        with endpoint(fault) as simulator, pytest.raises(SourceError):
            obtain(simulator.url, slept=slept, **options)
        assert 1 < simulator.requests <= most
        assert 0 < sum(slept) < limit


@pytest.mark.parametrize(("high", "most"), [(1.0, 10), (0.25, 100)])
def test_a_refused_connection_ends_after_3_seconds(
    high: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, bound: bound * high)
    clock = FakeClock(0.0)  # a busy machine's own time has no part in it
    source = EndpointSource(f"http://127.0.0.1:{own_port()}", ServerClock(), timeout=5, sleep=clock.sleep)
    with pytest.raises(SourceError, match="connection refused") as caught:
        source.obtain(ACME, Deadline(60, clock.now))
    assert caught.value.retryable
    assert 1.9 < sum(clock.slept) < 3
    assert len(clock.slept) < most


def test_a_deadline_that_has_passed_is_the_cause_unless_another_one_was_seen() -> None:
    with pytest.raises(SourceError, match="The deadline passed before a request to"):
        obtain(f"http://127.0.0.1:{own_port()}", seconds=0)
    clock = FakeClock(0.0)
    url = f"http://127.0.0.1:{own_port()}"
    source = EndpointSource(url, ServerClock(), timeout=5, sleep=lambda _: clock.sleep(60))
    with pytest.raises(SourceError, match="connection refused"):
        source.obtain(ACME, Deadline(50, clock.now))


def test_a_name_that_does_not_resolve_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def unknown(*_: object, **options: object) -> None:
        asked.append(options.get("flags"))
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    slept: list[float] = []
    with pytest.raises(SourceError, match="its name does not resolve") as caught:
        obtain("https://api.example", slept=slept)
    assert (len(slept), asked.count(None), caught.value.retryable) == (1, 2, True)


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "truncated"])
def test_what_passes_is_got_over(fault: str) -> None:
    with endpoint(fault, fault_count=2) as simulator:
        obtain(simulator.url)
    assert simulator.requests == 3


def test_a_missing_parameter_is_named() -> None:
    with (
        endpoint("parameter-missing") as simulator,
        pytest.raises(ParameterMissingError, match="company_name"),
    ):
        obtain(simulator.url)


def test_retry_after_is_waited_for_but_not_beyond_the_deadline() -> None:
    slept: list[float] = []
    with endpoint("429", fault_count=1) as simulator:
        source = EndpointSource(simulator.url, ServerClock(), timeout=5, sleep=slept.append)
        source.obtain(ACME, Deadline(20))
        assert slept[0] >= 1
        simulator.fault, simulator.fault_count = "429", None
        with pytest.raises(SourceBusyError):
            source.obtain(ACME, Deadline(0.9))
    assert len(slept) == 1


@pytest.mark.parametrize("fault", ["hang", "drip-header", "drip-body"])
def test_the_deadline_holds_whatever_the_endpoint_sends(fault: str) -> None:
    started = time.monotonic()
    with endpoint(fault) as simulator, pytest.raises(SourceError) as caught:
        obtain(simulator.url, seconds=1, timeout=0.8)
    assert caught.value.retryable
    assert time.monotonic() - started < 5  # seconds: far more than the deadline, far less than for ever


Seen = tuple[str, dict[str, str], bytes]


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers 401 and keeps what was asked."""

    seen: list[Seen]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, dict(self.headers), body))
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def recording(
    wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain,
) -> Iterator[tuple[int, list[Seen]]]:
    handler: type[Recorder] = type("Fresh", (Recorder,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = wrap(server.socket)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], handler.seen
        server.shutdown()
        thread.join()


def test_the_request_is_a_form_without_any_authorization_also_not_from_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with recording() as (port, seen):
        source = EndpointSource(f"http://127.0.0.1:{port}", ServerClock(), timeout=5)
        with pytest.raises(SourceRefusedError):
            source.obtain(Identity("2&6", "Ac me é"), Deadline(5))
    ((path, headers, body),) = seen
    assert path == "/access/klearstack/getaccesstokenfromuserid"
    assert body == b"user_id=2%266&company_name=Ac+me+%C3%A9"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert not {"authorization", "cookie"} & {name.lower() for name in headers}


def test_tls_is_verified_with_an_own_ca_if_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl  # noqa: PLC0415  this test's alone

    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with recording(lambda plain: context.wrap_socket(plain, server_side=True)) as (port, seen):
        with pytest.raises(SourceSettingsError, match="its CA is not trusted") as caught:
            obtain(f"https://127.0.0.1:{port}")
        assert (caught.value.retryable, seen) == (False, [])
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))  # trusted by requests, not by us
        with pytest.raises(SourceError, match="does not verify"):
            obtain(f"https://127.0.0.1:{port}")
        with pytest.raises(SourceRefusedError):
            obtain(f"https://127.0.0.1:{port}", ca_file=str(ca_file))
        assert len(seen) == 1


def test_the_endpoints_clock_is_what_expiry_is_judged_by() -> None:
    with endpoint() as simulator:
        clock = ServerClock(wall=lambda: 4_000_000_000.0)  # ours is decades ahead
        pair = EndpointSource(simulator.url, clock, timeout=5).obtain(ACME, Deadline(5))
    assert clock.measured
    assert 890 < pair.access.ttl(clock.now()) <= 900


def test_a_redirect_is_not_followed() -> None:
    with endpoint("redirect") as simulator, pytest.raises(SourceRefusedError, match="redirect"):
        obtain(simulator.url)
    assert (simulator.requests, simulator.mints) == (1, 0)


BIG = 100_000_000  # bytes


@pytest.mark.parametrize("status", [200, 302, 401, 500])
@pytest.mark.parametrize("how", ["length", "chunked", "close"])
def test_of_a_body_of_100_mb_no_more_is_read_than_what_is_on_its_way(status: int, how: str) -> None:
    sent: SimpleQueue[int] = SimpleQueue()

    class Endless(Recorder):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            if how == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            elif how == "length":
                self.send_header("Content-Length", str(BIG))
            self.end_headers()
            self.close_connection = True
            block, total = b" " * 65536, 0
            with suppress(OSError):
                while total < BIG:
                    self.wfile.write(b"10000\r\n" + block + b"\r\n" if how == "chunked" else block)
                    total += len(block)
            sent.put(total)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        source = EndpointSource(
            f"http://127.0.0.1:{server.server_address[1]}", ServerClock(), timeout=5, sleep=lambda _: None
        )
        with pytest.raises(KlearstackVaultError):
            source.obtain(ACME, Deadline(20))
        assert sent.get(timeout=20) < BIG / 4  # the two sockets' buffers take some of it unread
        server.shutdown()


def test_deeply_nested_json_is_no_json_to_us() -> None:
    class Nested(Recorder):
        def do_POST(self) -> None:
            body = json.dumps("[" * 30000).encode()[1:-1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nested) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(SourceProtocolError):
            obtain(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()


def test_a_probe_names_no_identity_and_returns_what_the_endpoint_reports() -> None:
    def probed(url: str) -> Failure | None:
        with closing(EndpointSource(url, ServerClock(), timeout=5)) as source:
            return source.probe(Deadline(5))

    with endpoint() as simulator:
        failure = probed(simulator.url)
        assert failure is not None
        assert (failure.number, simulator.mints) == (500, 0)
    with minting({"user_id": None}, {"user_id": None}) as (url, _):
        assert probed(url) is None  # as if one were named
    with endpoint("503") as simulator, pytest.raises(SourceError, match="responded with status 503"):
        probed(simulator.url)
