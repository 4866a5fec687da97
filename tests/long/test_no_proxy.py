"""That `bao` decides about a proxy as we do, which unit tests take for granted."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.no_proxy import EXCLUDED, SERVED

from vault_plugin.demo.embedded import binary


@pytest.fixture
def proxy() -> Iterator[str]:
    """The URL of a proxy that refuses everything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 418 Refused\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_bao_uses_the_proxy_for_the_same_servers(proxy: str, tmp_path: object) -> None:
    def is_asked(case: tuple[str, int, str]) -> bool:
        host, port, exceptions = case
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "BAO_ADDR": f"https://{f'[{host}]' if ':' in host else host}:{port}",
            "BAO_MAX_RETRIES": "0",
            "BAO_CLIENT_TIMEOUT": "1s",
            "HTTPS_PROXY": proxy,
            "NO_PROXY": exceptions,
        }
        done = subprocess.run([binary(), "status"], env=environ, capture_output=True, text=True, check=False)
        return "Refused" in done.stderr

    with ThreadPoolExecutor(8) as pool:
        assert [
            case for case, asked in zip(SERVED, pool.map(is_asked, SERVED), strict=True) if not asked
        ] == []
        assert [
            case for case, asked in zip(EXCLUDED, pool.map(is_asked, EXCLUDED), strict=True) if asked
        ] == []
