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
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

PATH = "/access/klearstack/getaccesstokenfromuserid"
_STATS = "/simulator/stats"
_ELSEWHERE = "/simulator/elsewhere"  # where the fault "redirect" points: it mints for whoever follows
_METHODS = {PATH: ("POST",), _STATS: ("GET",), _ELSEWHERE: ("GET", "POST")}
_PARAMETERS = {"user_id": "User Id", "company_name": "Company Name"}

# As the endpoint's page prints them: neither token decodes, and its curly quotes are no JSON.
_DOCUMENTED = {
    "refresh_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTY1NjU3NjA5OCwiaWF0IjoxNjU2NTcdGkiOiI1ZmEzNGM4YjUyOGI0OWM3OWQzNjk5ZWJlNDRlYzUwZiIsInVzZXJfaWQiOjI2fQ.kvpMWPuxenw2c55nucfQCxHLipiO4DhK2TC5NKpJZEk",
    "access_token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNjU2NTc2MDM4LCJpYTY1NzU5MTgsImp0aSI6IjQwMWZlYmJhODg4NDQ1MmRhN2Q3ZTA5ZjEwZmYwOWFkIiwidXNlcl9pZCI6MjZ9.sjU6iVbRRp7dTDt-l4rj7K7tKpPpaL7yskjstAUn2Zs",
    "release_version": "7.8.9",
}
_NOT_JSON = json.dumps(_DOCUMENTED, indent=0).replace('"7.8.9"', "“7.8.9”").encode()
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n"

Claims = dict[str, Any]
Pair = dict[str, str]  # the body of a good answer


class Fault(NamedTuple):
    """One way to go wrong. `does` is for people; whatever is left out is as in a good answer."""

    does: str
    status: int = 200
    headers: Mapping[str, str] = {}
    body: Callable[[Pair], object] = lambda pair: pair  # bytes go out as they are, anything else as JSON
    spoil: Callable[[Claims], object] = lambda claims: claims  # changes the claims of each token, in place
    drip: tuple[bytes, bytes] | None = None  # no answer, but the one at once and the other every 0.2 seconds
    reset: bool = False  # no answer at all


_NONE = Fault("nothing")


def _error(status: int, message: str = "", headers: Mapping[str, str] = _NONE.headers) -> Fault:
    # Errors hold fresh tokens, too: a client that quotes a body in a message or a log is found out.
    phrase = HTTPStatus(status).phrase
    return Fault(f"{status} {phrase}", status, headers, lambda pair: {"error": message or phrase, **pair})


def _missing(names: Iterable[str]) -> str:
    titles = ", ".join(f"“{_PARAMETERS[name]}”" for name in names)
    return f"One or Many Required parameters from {titles.lower()} must be missing, E.g error {titles}"


def _without(name: str) -> Callable[[Pair], Pair]:
    return lambda pair: {key: value for key, value in pair.items() if key != name}


def _swap(claims: Claims) -> None:
    claims["token_type"] = {"access": "refresh", "refresh": "access"}[claims["token_type"]]


def _fraction(claims: Claims) -> None:
    claims.update(exp=claims["exp"] + 0.5, iat=claims["iat"] + 0.0)


def _age(claims: Claims) -> None:
    age = claims["exp"] - claims["iat"] + 60
    claims.update(exp=claims["exp"] - age, iat=claims["iat"] - age)


FAULTS: Mapping[str, Fault] = {
    **{str(status): _error(status) for status in (400, 401, 403, 404, 502, 503, 504)},
    "429": _error(429, headers={"Retry-After": "1"}),
    "500": _error(500, "Something went wrong. Please try again later."),
    "array": Fault("JSON, but a list", body=lambda pair: [pair]),
    "bad-exp": Fault("exp is a string", spoil=lambda claims: claims.update(exp=str(claims["exp"]))),
    "documented": Fault("the documentation's tokens, which do not decode", body=lambda _: _DOCUMENTED),
    "drip-body": Fault("a body that comes byte by byte, for ever", drip=(_OK + b"\r\n", b" ")),
    "drip-header": Fault("a header that comes byte by byte, for ever", drip=(_OK + b"X-Drip: ", b".")),
    "empty-access-token": Fault("access_token is empty", body=lambda pair: {**pair, "access_token": ""}),
    "empty-refresh-token": Fault("refresh_token is empty", body=lambda pair: {**pair, "refresh_token": ""}),
    "expired": Fault("exp was a minute ago", spoil=_age),
    "float-exp": Fault("exp and iat have a fraction (valid)", spoil=_fraction),
    "hang": Fault("no answer, for ever", drip=(b"", b"")),
    "html": Fault("a web page", 200, {"Content-Type": "text/html"}, lambda pair: f"<p>{pair}</p>".encode()),
    "nan-exp": Fault("exp is NaN", spoil=lambda claims: claims.update(exp=float("nan"))),
    "no-access-token": Fault("access_token is missing", body=_without("access_token")),
    "no-exp": Fault("exp is missing", spoil=lambda claims: claims.pop("exp")),
    "no-jti": Fault("jti is missing (valid)", spoil=lambda claims: claims.pop("jti")),
    "no-refresh-token": Fault("refresh_token is missing", body=_without("refresh_token")),
    "not-json": Fault("the documentation's sample, which is no JSON", body=lambda _: _NOT_JSON),
    "oversized": Fault("2 MiB of JSON", body=lambda pair: {**pair, "padding": "." * 2**21}),
    "parameter-missing": _error(500, _missing(["company_name"])),
    "redirect": Fault("302 to a path that mints", 302, {"Location": _ELSEWHERE}),
    "reset": Fault("the connection is reset", reset=True),
    "truncated": Fault("a body cut short", 200, {"Content-Length": "65536", "Connection": "close"}),
    "wrong-type": Fault("token_type is swapped", spoil=_swap),
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
        self.access_ttl, self.refresh_ttl, self.latency = access_ttl, refresh_ttl, latency
        self.fault, self.fault_count = fault, fault_count
        self.requests = 0  # POSTs, whatever the answer
        self.mints = 0  # pairs answered with 200, usable or not
        self.issued: list[str] = []  # every token that went out, whatever the status
        self.lock = threading.Lock()  # guards all of these
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
            self._server.serve_forever(poll_interval=0.02)
        finally:
            self.stopping.set()
            self._server.server_close()

    def next_fault(self) -> Fault:
        """Take what the next request meets; when the last of `fault_count` requests is hit, all is well again."""
        with self.lock:
            fault = FAULTS.get(self.fault, _NONE) if self.fault_count != 0 else _NONE
            if self.fault_count is not None:
                self.fault_count -= 1
                if self.fault_count <= 0:
                    self.fault, self.fault_count = "", None
            return fault

    def mint(self, user_id: str, spoil: Callable[[Claims], object] = _NONE.spoil) -> Pair:
        """Sign a fresh pair: the body of a good answer."""
        now = time.time()

        def jwt(token_type: str, ttl: float) -> str:
            claims: Claims = {"token_type": token_type, "exp": int(now + ttl), "iat": int(now)}
            claims["jti"] = secrets.token_hex(16)
            claims["user_id"] = int(user_id) if re.fullmatch("[0-9]{1,18}", user_id) else user_id
            spoil(claims)
            signed = f"{_segment({'typ': 'JWT', 'alg': 'HS256'})}.{_segment(claims)}"
            return f"{signed}.{_segment(hmac.digest(self._key, signed.encode(), 'sha256'))}"

        refresh, access = jwt("refresh", self.refresh_ttl), jwt("access", self.access_ttl)
        return {"refresh_token": refresh, "access_token": access, "release_version": "7.8.9"}


def _segment(part: Claims | bytes) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _form(content_type: str, body: bytes) -> dict[str, str]:
    if not content_type.lower().startswith("multipart/form-data"):
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    fields = {}
    for part in email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts():
        value = bytes(part.get_payload(decode=True) or b"")
        fields[str(part.get_param("name", header="content-disposition"))] = value.decode(errors="replace")
    return fields


class _Server(socketserver.ThreadingTCPServer):  # HTTPServer looks up this host's name, which may take long
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
        patience = time.monotonic() + 1
        for connection in self.connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it, which closes it
        while self.connections and time.monotonic() < patience:
            time.sleep(0.005)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        simulator = self.server.simulator
        with simulator.lock:
            simulator.requests += self.command == "POST"
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length)) if length.isdecimal() else b""  # the next request is behind it
        path = self.path.partition("?")[0]
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self._send(411, {"error": "Please send a Content-Length."}, {"Connection": "close"})
        elif path not in _METHODS:
            self._send(404, {"error": "Not found."})
        elif self.command not in _METHODS[path]:
            self._send(405, {"error": "Method not allowed."}, {"Allow": ", ".join(_METHODS[path])})
        elif path == _STATS:
            self._send(200, {"mints": simulator.mints, "requests": simulator.requests})
        elif path == _ELSEWHERE:
            self._send_pair("elsewhere", _NONE)
        else:
            self._login(_form(self.headers.get("Content-Type", ""), body))

    do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = do_GET  # noqa: N815  http.server's names

    def _login(self, form: Mapping[str, str]) -> None:
        simulator = self.server.simulator
        simulator.stopping.wait(simulator.latency)
        fault = simulator.next_fault()
        missing = [name for name in _PARAMETERS if not form.get(name)]
        if fault.reset:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it shares the socket, which closes with the last of its users
            self.connection.close()
        elif fault.drip:
            self.close_connection = True
            self.connection.sendall(fault.drip[0])
            while not simulator.stopping.wait(0.2):
                self.connection.sendall(fault.drip[1])
        elif missing and fault.status == 200:
            self._send(500, {"error": _missing(missing)})
        else:
            self._send_pair(form.get("user_id", ""), fault)

    def _send_pair(self, user_id: str, fault: Fault) -> None:
        simulator = self.server.simulator
        with simulator.lock:
            simulator.mints += fault.status == 200
        self._send(fault.status, fault.body(simulator.mint(user_id, fault.spoil)), fault.headers)

    def _send(self, status: int, body: object, headers: Mapping[str, str] = _NONE.headers) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.server.simulator.lock:
            self.server.simulator.issued += re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", content.decode())
        fields = {"Date": self.date_time_string(), "Content-Type": "application/json"}
        fields |= {"Content-Length": str(len(content)), **headers}
        self.close_connection |= "Connection" in fields
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        # In one write: the second of two would wait for the client's acknowledgement of the first.
        self.connection.sendall(head.encode() + (b"" if self.command == "HEAD" else content))
