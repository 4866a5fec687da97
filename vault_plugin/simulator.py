"""A simulated KlearStack endpoint, for trials and tests: nobody should have to try things out in production.

with Simulator(access_ttl=5, fault="503", fault_count=2) as endpoint:
    ...  # POST to endpoint.url + PATH: two failures, then real HS256 JWTs
"""

import base64
import email
import email.policy
import hmac
import json
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qsl

PATH = "/access/klearstack/getaccesstokenfromuserid"
_STATS = "/simulator/stats"
_ELSEWHERE = "/simulator/elsewhere"  # where the fault "redirect" points: it mints for whoever follows
_METHODS = {PATH: "POST", _STATS: "GET"}
_PARAMETERS = {"user_id": "User Id", "company_name": "Company Name"}

# As the endpoint's page prints them: neither token decodes, and its body's curly quotes make it no JSON.
_DOCUMENTED = {
    "refresh_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTY1NjU3NjA5OCwiaWF0IjoxNjU2NTcdGkiOiI1ZmEzNGM4YjUyOGI0OWM3OWQzNjk5ZWJlNDRlYzUwZiIsInVzZXJfaWQiOjI2fQ.kvpMWPuxenw2c55nucfQCxHLipiO4DhK2TC5NKpJZEk",
    "access_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNjU2NTc2MDM4LCJpYTY1NzU5MTgsImp0aSI6IjQwMWZlYmJhODg4NDQ1MmRhN2Q3ZTA5ZjEwZmYwOWFkIiwidXNlcl9pZCI6MjZ9.sjU6iVbRRp7dTDt-l4rj7K7tKpPpaL7yskjstAUn2Zs",
    "release_version": "7.8.9",
}

Claims = dict[str, Any]
Pair = dict[str, str]  # the body of a good answer


@dataclass(frozen=True)
class Fault:
    """One way to go wrong. `does` is for people; what the others leave out is as in a good answer."""

    does: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    claims: Callable[[Claims], Claims] = lambda claims: claims
    body: Callable[[Pair], object] = lambda pair: pair  # bytes go out as they are, anything else as JSON
    wire: Callable[["_Handler"], None] | None = None  # takes over the connection, instead of an answer


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Fault:
    # Errors hold fresh tokens, too: a client that quotes a body in a message or a log is found out.
    does = f"answers {status} {HTTPStatus(status).phrase}"
    return Fault(does, status, headers or {}, body=lambda pair: {"error": message, **pair})


def _missing(names: Iterable[str]) -> str:
    titles = [_PARAMETERS[name] for name in names]
    return (
        f"One or Many Required parameters from {', '.join(titles).lower()} must be missing, "
        f"E.g error {', '.join(f'“{title}”' for title in titles)}"
    )


def _reset(handler: "_Handler") -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.rfile.close()  # it shares the socket, which closes with the last of its users
    handler.connection.close()


def _drip(at_once: bytes, then: bytes) -> Callable[["_Handler"], None]:
    def drip(handler: "_Handler") -> None:
        handler.connection.sendall(at_once)
        while not handler.server.simulator.stopping.wait(0.2):
            handler.connection.sendall(then)

    return drip


def _expired(claims: Claims) -> Claims:
    age = claims["exp"] - claims["iat"] + 60
    return {**claims, "exp": claims["exp"] - age, "iat": claims["iat"] - age}


def _swapped(claims: Claims) -> Claims:
    return {**claims, "token_type": {"access": "refresh", "refresh": "access"}[claims["token_type"]]}


def _without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {key: value for key, value in content.items() if key != name}


FAULTS: Mapping[str, Fault] = {
    **{str(code): _error(code, HTTPStatus(code).phrase) for code in (400, 401, 403, 404, 502, 503, 504)},
    "429": _error(429, "Too many requests.", {"Retry-After": "1"}),
    "500": _error(500, "Something went wrong. Please try again later."),
    "array": Fault("answers a JSON array", body=lambda pair: [pair]),
    "bad-exp": Fault("exp is a string", claims=lambda claims: {**claims, "exp": str(claims["exp"])}),
    "documented": Fault(
        "answers the documentation's tokens, which do not decode", body=lambda _: _DOCUMENTED
    ),
    "drip-body": Fault(
        "sends its body byte by byte, without end",
        wire=_drip(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n", b" "
        ),
    ),
    "drip-header": Fault(
        "sends its header byte by byte, without end", wire=_drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b".")
    ),
    "empty-access-token": Fault("access_token is empty", body=lambda pair: {**pair, "access_token": ""}),
    "empty-refresh-token": Fault("refresh_token is empty", body=lambda pair: {**pair, "refresh_token": ""}),
    "expired": Fault("mints tokens that expired a minute ago", claims=_expired),
    "float-exp": Fault(
        "exp and iat have a fraction, which is valid",
        claims=lambda claims: {**claims, "exp": claims["exp"] + 0.5, "iat": claims["iat"] + 0.5},
    ),
    "hang": Fault("never answers", wire=_drip(b"", b"")),
    "html": Fault(
        "answers an HTML page",
        headers={"Content-Type": "text/html"},
        body=lambda pair: f"<!doctype html><title>Sign in</title>{pair['access_token']}".encode(),
    ),
    "nan-exp": Fault("exp is NaN", claims=lambda claims: {**claims, "exp": float("nan")}),
    "no-access-token": Fault("access_token is left out", body=_without("access_token")),
    "no-exp": Fault("exp is left out", claims=_without("exp")),
    "no-jti": Fault("jti is left out, which is valid", claims=_without("jti")),
    "no-refresh-token": Fault("refresh_token is left out", body=_without("refresh_token")),
    "not-json": Fault(
        "answers the documentation's sample, which is no JSON",
        body=lambda _: json.dumps(_DOCUMENTED, indent=0).replace('"7.8.9"', "“7.8.9”").encode(),
    ),
    "oversized": Fault("answers 2 MiB", body=lambda pair: {**pair, "padding": "." * 2**21}),
    "parameter-missing": _error(500, _missing(["company_name"])),
    "redirect": Fault("answers 302 to a path that mints", 302, {"Location": _ELSEWHERE}),
    "reset": Fault("resets the connection", wire=_reset),
    "truncated": Fault(
        "ends before its Content-Length", headers={"Content-Length": "65536", "Connection": "close"}
    ),
    "wrong-type": Fault("token_type of the two is swapped", claims=_swapped),
}


class Simulator:
    """Listens on 127.0.0.1 from the start; answers inside `with`, or while `serve_forever()` runs.

    `access_ttl` and `refresh_ttl` are the tokens' lives, `latency` delays each answer: all in seconds. `fault` is
    a name of FAULTS or ""; it hits the next `fault_count` requests, or all. All but `port` may change at any time.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        access_ttl: float = 900,
        refresh_ttl: float = 86400 * 2,
        latency: float = 0.0,
        fault: str = "",
        fault_count: int | None = None,
    ) -> None:
        self.access_ttl = access_ttl
        self.refresh_ttl = refresh_ttl
        self.latency = latency
        self.fault = fault
        self.fault_count = fault_count
        self.requests = 0  # POSTs, whatever the answer
        self.mints = 0  # pairs answered with 200, usable or not
        self.issued: list[str] = []  # every token that went out, whatever the status
        self.lock = threading.Lock()  # guards the counters and the fault
        self.stopping = threading.Event()
        self._key = secrets.token_bytes(32)
        self._server = _Server(port, self)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, name: str) -> None:
        if name and name not in FAULTS:
            raise ValueError(f"There is no fault {name!r}, only {', '.join(sorted(FAULTS))}.")
        self._fault = name

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def serve_forever(self) -> None:
        """Answer until interrupted, then close every connection."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self.stopping.set()
            self._server.server_close()

    def next_fault(self) -> Fault:
        """Take what the next request meets. After the last of `fault_count` requests all is well again."""
        with self.lock:
            if self.fault_count == 0:
                self.fault, self.fault_count = "", None
            elif self.fault_count is not None:
                self.fault_count -= 1
            return FAULTS[self.fault] if self.fault else Fault("answers well")

    def mint(self, user_id: str, claims: Callable[[Claims], Claims] = lambda claims: claims) -> Pair:
        """Sign a fresh pair, as a good answer holds it; `claims` may spoil the claims of each token."""
        now = time.time()

        def jwt(token_type: str, ttl: float) -> str:
            payload = {
                "token_type": token_type,
                "exp": int(now + ttl),
                "iat": int(now),
                "jti": secrets.token_hex(16),
                "user_id": int(user_id) if re.fullmatch("[0-9]{1,18}", user_id) else user_id,
            }
            parts = ({"typ": "JWT", "alg": "HS256"}, claims(payload))
            signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
            return b".".join((signed, _base64url(hmac.digest(self._key, signed, "sha256")))).decode()

        return {
            "refresh_token": jwt("refresh", self.refresh_ttl),
            "access_token": jwt("access", self.access_ttl),
            "release_version": "7.8.9",
        }


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _form(content_type: str, body: bytes) -> dict[str, str]:
    if not content_type.lower().startswith("multipart/form-data"):
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): (
            bytes(part.get_payload(decode=True) or b"").decode(errors="replace")
        )
        for part in message.iter_parts()
    }


class _Server(
    socketserver.ThreadingTCPServer
):  # HTTPServer would look up this host's name, which may take long
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, simulator: Simulator) -> None:
        self.simulator = simulator
        self.connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has gone away is no news
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it, which closes it
        patience = time.monotonic() + 1
        while self.connections and time.monotonic() < patience:
            time.sleep(0.005)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        simulator = self.server.simulator
        if self.command == "POST":
            with simulator.lock:
                simulator.requests += 1
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self._send(411, {"error": "Please send a Content-Length."}, {"Connection": "close"})
            return
        body = self.rfile.read(int(length))  # in any case: the next request follows on the same connection
        path = self.path.partition("?")[0]
        if path not in {*_METHODS, _ELSEWHERE}:
            self._send(404, {"error": "Not found."})
        elif self.command != _METHODS.get(path, self.command):
            self._send(405, {"error": "Method not allowed."}, {"Allow": _METHODS[path]})
        elif path == _STATS:
            self._send(200, {"mints": simulator.mints, "requests": simulator.requests})
        elif path == _ELSEWHERE:
            self._send_pair(Fault("answers well"), "elsewhere")
        else:
            self._login(_form(self.headers.get("Content-Type", ""), body))

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _answer

    def _login(self, form: Mapping[str, str]) -> None:
        simulator = self.server.simulator
        simulator.stopping.wait(simulator.latency)
        fault = simulator.next_fault()
        missing = [name for name in _PARAMETERS if not form.get(name)]
        if fault.wire:
            self.close_connection = True
            fault.wire(self)
        elif missing and fault.status == 200:
            self._send(500, {"error": _missing(missing)})
        else:
            self._send_pair(fault, form.get("user_id", ""))

    def _send_pair(self, fault: Fault, user_id: str) -> None:
        simulator = self.server.simulator
        pair = simulator.mint(user_id, fault.claims)
        with simulator.lock:
            simulator.mints += fault.status == 200
        self._send(fault.status, fault.body(pair), fault.headers)

    def _send(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.server.simulator.lock:
            found = re.findall(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+", content)
            self.server.simulator.issued += [token.decode() for token in found]
        fields = {
            "Date": self.date_time_string(),
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **({"Connection": "close"} if self.close_connection else {}),
            **(headers or {}),
        }
        self.close_connection = "Connection" in fields
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        # One write for both: what is sent in two may wait for the client's acknowledgement in between.
        self.connection.sendall(head.encode() + (b"" if self.command == "HEAD" else content))
