"""A simulated KlearStack endpoint, for trials and tests: nobody should have to try things out in production.

with Simulator(access_ttl=5, fault="503", fault_count=2) as endpoint:
    ...  # POST to endpoint.url + ENDPOINT_PATH: two failures, then real HS256 JWTs
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qsl

from vault_plugin.demo.faults import (
    ELSEWHERE,
    FAULTS,
    NONE,
    PARAMETERS,
    Claims,
    Fault,
    Pair,
    missing_parameters,
)
from vault_plugin.errors import TokenError
from vault_plugin.settings.values import ENDPOINT_PATH
from vault_plugin.tokens.jwt import Kind, Token

_STATS = "/simulator/stats"
_GET_USER_ID = "/access/klearstack/getuserid"  # a part of the API that wants a token
_METHODS = {
    ENDPOINT_PATH: ("POST",),
    _GET_USER_ID: ("POST",),
    _STATS: ("GET",),
    ELSEWHERE: ("GET", "POST"),
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
        self.ahead = 0.0  # seconds by which its clock is ahead of this host's
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
            fault = FAULTS.get(self.fault, NONE) if self.fault_count != 0 else NONE
            if self.fault_count is not None:
                self.fault_count -= 1
                if self.fault_count <= 0:
                    self.fault, self.fault_count = "", None
            return fault

    def mint(self, user_id: str, spoil: Callable[[Claims], object] = NONE.spoil) -> Pair:
        """Sign a fresh pair: the body of a good answer."""
        now = time.time() + self.ahead

        def jwt(token_type: str, ttl: float) -> str:
            claims: Claims = {"token_type": token_type, "exp": int(now + ttl), "iat": int(now)}
            claims["jti"] = secrets.token_hex(16)
            claims["user_id"] = int(user_id) if re.fullmatch("[0-9]{1,18}", user_id) else user_id
            spoil(claims)
            signed = f"{_segment({'typ': 'JWT', 'alg': 'HS256'})}.{_segment(claims)}"
            return f"{signed}.{_segment(hmac.digest(self._key, signed.encode(), 'sha256'))}"

        refresh, access = jwt("refresh", self.refresh_ttl), jwt("access", self.access_ttl)
        return {"refresh_token": refresh, "access_token": access, "release_version": "7.8.9"}

    def bearer(self, authorization: str) -> str | None:
        """Whose access token the header holds; None if it is none of ours, or dead."""
        scheme, _, raw = authorization.partition(" ")
        with self.lock:
            ours = scheme.lower() == "bearer" and raw in self.issued
        try:
            token = Token.from_jwt(raw, Kind.ACCESS)
        except TokenError:
            return None
        return token.user_id if ours and token.ttl(time.time() + self.ahead) else None


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
        elif path == ELSEWHERE:
            self._send_pair("elsewhere", NONE)
        elif path == _GET_USER_ID:
            user_id = simulator.bearer(self.headers.get("Authorization", ""))
            if user_id is None:
                self._send(401, {"error": "The access token is invalid or has expired."})
            else:
                self._send(200, {"user_id": user_id})
        else:
            self._login(_form(self.headers.get("Content-Type", ""), body))

    do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = do_GET  # noqa: N815  http.server's names

    def _login(self, form: Mapping[str, str]) -> None:
        simulator = self.server.simulator
        simulator.stopping.wait(simulator.latency)
        fault = simulator.next_fault()
        missing = [name for name in PARAMETERS if not form.get(name)]
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
            self._send(500, {"error": missing_parameters(missing)})
        else:
            self._send_pair(form.get("user_id", ""), fault)

    def _send_pair(self, user_id: str, fault: Fault) -> None:
        simulator = self.server.simulator
        with simulator.lock:
            simulator.mints += fault.status == 200
        self._send(fault.status, fault.body(simulator.mint(user_id, fault.spoil)), fault.headers)

    def _send(self, status: int, body: object, headers: Mapping[str, str] = NONE.headers) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.server.simulator.lock:
            self.server.simulator.issued += re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", content.decode())
        date = self.date_time_string(time.time() + self.server.simulator.ahead)
        fields = {"Date": date, "Content-Type": "application/json"}
        fields |= {"Content-Length": str(len(content)), **headers}
        self.close_connection |= "Connection" in fields
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        # In one write: the second of two would wait for the client's acknowledgement of the first.
        self.connection.sendall(head.encode() + (b"" if self.command == "HEAD" else content))
