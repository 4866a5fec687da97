"""A simulated KlearStack endpoint for trials and tests, which need no production system.

with Simulator(access_ttl=5, fault="503", fault_count=2) as endpoint:
    ...  # POST to endpoint.url + ENDPOINT_PATH: two failures, then real HS256 JWTs
"""

import email
import email.policy
import json
import re
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qsl

from vault_plugin.demo.faults import ELSEWHERE, NONE, PARAMETERS, Fault, missing_parameters
from vault_plugin.demo.issuer import Issuer
from vault_plugin.settings.values import ENDPOINT_PATH

_STATS = "/simulator/stats"
_GET_USER_ID = "/access/klearstack/getuserid"  # a part of the API that requires a token
_METHODS = {
    ENDPOINT_PATH: ("POST",),
    _GET_USER_ID: ("POST",),
    _STATS: ("GET",),
    ELSEWHERE: ("GET", "POST"),
}


class Simulator(Issuer):
    """Listens on 127.0.0.1 from the start; responds inside `with`, or while `serve_forever()` runs."""

    def __init__(self, *, port: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.stopping = threading.Event()
        self._server = _Server(port, self)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def serve_forever(self) -> None:
        """Respond until interrupted, then close every connection."""
        try:
            self._server.serve_forever(poll_interval=0.02)
        finally:
            self.stopping.set()
            self._server.server_close()


def _form(content_type: str, body: bytes) -> dict[str, str]:
    if not content_type.lower().startswith("multipart/form-data"):
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    fields = {}
    for part in email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts():
        value = bytes(part.get_payload(decode=True) or b"")
        fields[str(part.get_param("name", header="content-disposition"))] = value.decode(errors="replace")
    return fields


class _Server(socketserver.ThreadingTCPServer):
    """HTTPServer would look up this host's name, which may take long."""

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
        if not isinstance(sys.exception(), OSError):  # a client may close its connection at any time
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        patience = time.monotonic() + 1
        for connection in self.connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
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
        body = self.rfile.read(int(length)) if length.isdecimal() else b""  # the next request follows it
        path = self.path.partition("?")[0]
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self._send(411, {"error": "A Content-Length is required."}, {"Connection": "close"})
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
            self.rfile.close()  # it shares the socket, which is closed with its last user
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
        # In one write, or the second would wait for the client to acknowledge the first.
        self.connection.sendall(head.encode() + (b"" if self.command == "HEAD" else content))
