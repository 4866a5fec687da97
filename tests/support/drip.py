"""Servers that send a byte now and then, or close too early, wherever in a response that may be."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

INTERVAL = 0.1  # seconds between two pieces
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# What comes at once, and what comes again and again after it.
DRIPS = {
    "status": (b"HTTP/1.1 200 ", b"O"),
    "header": (HEAD + b"X-Drip: ", b"."),
    "headers": (HEAD, b"X-Drip: .\r\n"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n{", b" "),
    "endless body": (HEAD + b"\r\n{", b" "),
    "chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n100000\r\n{", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Drip: .\r\n"),
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"),
    "nothing": (b"", b""),
}


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(
    answer: Callable[[socket.socket, threading.Event], Any], *, at_once: bool = False
) -> Iterator[str]:
    """A server that does this with each connection when a request, or, `at_once`, nothing has come: its URL."""
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                line, length = b"" if at_once else b"?", 0
                while line.strip():
                    line = self.rfile.readline()
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                self.rfile.read(length)  # or closing would reset the connection
                answer(self.connection, over)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def dripping(where: str) -> Any:
    """A server that drips there."""
    at_once, again = DRIPS[where]

    def drip(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(at_once)
        while not over.wait(INTERVAL):
            connection.sendall(again)

    return serving(drip)


def closing(answer: bytes) -> Any:
    """A server that sends this and closes."""
    return serving(lambda connection, _: connection.sendall(answer))
