"""A TCP proxy on loopback before a real server, which loses answers, gives others, or lets things happen before."""

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

Predicate = Callable[[str], bool]


@dataclass
class Rule:
    """What becomes of the next `times` requests whose first line `matches`."""

    matches: Predicate
    times: int
    when: str = "before"  # or "after" the request was forwarded and its answer received
    act: Callable[[], object] = lambda: None
    answer: bytes | None = None  # this one instead of the server's
    reset: bool = False


@dataclass
class FaultProxy:
    """Forwards HTTP/1.1 to `address` but where a rule says otherwise. `requests` are the request lines seen."""

    target: str
    requests: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.close_connections()
        for thread in self._server.threads:
            thread.join(5)

    def before(self, matches: Predicate, act: Callable[[], object], *, times: int) -> None:
        """Do something before the request is forwarded."""
        self.rules.append(Rule(matches, times, act=act))

    def delay(self, matches: Predicate, seconds: float, *, times: int = 10**9) -> None:
        """Have each such request arrive so many seconds later."""
        self.before(matches, lambda: time.sleep(seconds), times=times)

    def delay_answers(self, matches: Predicate, seconds: float) -> None:
        """Have the answers to such requests arrive so many seconds later."""
        self.rules.append(Rule(matches, 10**9, "after", act=lambda: time.sleep(seconds)))

    @contextmanager
    def hold(self, matches: Predicate) -> Iterator[threading.Event]:
        """Hold the next such request back until the block ends, and forward it then, though its client be gone.

        The event is set when it has arrived.
        """
        arrived, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            arrived.set()
            go_on.wait(60)

        self.before(matches, wait, times=1)
        try:
            yield arrived
        finally:
            go_on.set()

    def reset(self, matches: Predicate, *, when: str, times: int) -> None:
        """Reset the connection instead of answering."""
        self.rules.append(Rule(matches, times, when, reset=True))

    def answer(
        self,
        matches: Predicate,
        status: int,
        *,
        when: str,
        times: int,
        body: bytes = b"{}",
        location: str = "",
        retry_after: int | None = None,
    ) -> None:
        """Answer this, whatever the server says."""
        fields = {"Content-Type": "application/json", "Content-Length": len(body)}
        fields |= {"Location": location} if location else {}
        fields |= {} if retry_after is None else {"Retry-After": retry_after}
        head = "\r\n".join(
            [f"HTTP/1.1 {status} Canned", *(f"{name}: {value}" for name, value in fields.items())]
        )
        self.rules.append(Rule(matches, times, when, answer=f"{head}\r\n\r\n".encode() + body))

    def connections(self) -> int:
        """How many clients have connected so far."""
        return len(self._server.threads)

    def close_connections(self) -> None:
        """Close all connections, as a server does with idle ones."""
        for connection in self._server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def all_happened(self) -> bool:
        """Whether every rule was applied as often as it was to be."""
        return all(rule.times == 0 for rule in self.rules)

    def rule_for(self, line: str, when: str) -> Rule | None:
        """The first rule with times left, used up by one."""
        with self._lock:
            for rule in self.rules:
                if rule.when == when and rule.times > 0 and rule.matches(line):
                    rule.times -= 1
                    return rule
            return None


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        super().__init__(*arguments)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without a FIN before it, so that a reset is one


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.threads.append(threading.current_thread())
        url = urlsplit(self.server.proxy.target)
        with socket.create_connection((url.hostname or "", url.port or 80)) as upstream, suppress(OSError):
            self.server.connections += [self.connection, upstream]
            with upstream.makefile("rb") as answers:
                while self._one(upstream, answers):
                    pass

    def _one(self, upstream: socket.socket, answers: Any) -> bool:
        """Serve one request; whether another may follow."""
        request = _message(self.rfile)
        line = request.partition(b"\r\n")[0].decode()
        if not line:
            return False
        proxy = self.server.proxy
        proxy.requests.append(line)
        proxy.heads.append(request.partition(b"\r\n\r\n")[0])
        rule = proxy.rule_for(line, "before")
        if rule:
            rule.act()
        if not rule or not (rule.reset or rule.answer):
            upstream.sendall(request)
            answer = _message(answers, bodyless=line.startswith("HEAD"))
            rule = proxy.rule_for(line, "after")
            if rule:
                rule.act()
            if not rule or not (rule.reset or rule.answer):
                self.connection.sendall(answer)
                return bool(answer)
        if rule.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        self.connection.sendall(rule.answer or b"")
        return True


def _message(stream: Any, *, bodyless: bool = False) -> bytes:
    """One HTTP message, to the byte; empty at the end of the stream."""
    message, length, chunked = b"", 0, False
    for line in stream:
        message += line
        name, _, value = line.lower().partition(b":")
        if name == b"content-length":
            length = int(value)
        chunked |= name == b"transfer-encoding" and value.strip() == b"chunked"
        if line == b"\r\n":
            break
    if bodyless:
        return message
    while chunked:  # as the server sends what is longer than 2 KB
        size = stream.readline()
        chunk = stream.read(int(size, 16) + 2)
        message += size + chunk
        chunked = int(size, 16) > 0
    return message + bytes(stream.read(length))
