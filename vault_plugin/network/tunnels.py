"""Connections through an HTTP proxy, by CONNECT: the proxy passes on TLS between this host and the server, and reads none."""

import errno
import re
from base64 import b64encode

from vault_plugin.network.sockets import Socket, connected
from vault_plugin.settings.proxies import Proxy

_MOST = 64 * 1024  # bytes of the head of a response
_STATUS = rb"HTTP/1\.[01] ([1-5][0-9]{2})\b[^\r\n]*\r?\n"
_END = rb"\r?\n\r?\n"


class ProxyError(OSError):
    """There is no way through the proxy, whose URL is shown without its login. `__context__` may say why."""

    def __init__(self, proxy: Proxy, status: int = 0) -> None:
        """`status` is that of its response to CONNECT; 0 if there is no such response."""
        super().__init__(f"no way through the proxy {proxy}")
        self.proxy = str(proxy)
        self.status = status


class NoProxyError(ProxyError):
    """The server at the proxy's address does not respond like an HTTP proxy."""


def tunneled(proxy: Proxy, host: str, port: int) -> Socket:
    """A connection through the proxy to that server. Raises ProxyError and its branch."""
    try:
        connection = connected(proxy.host, proxy.port)
    except OSError:
        raise ProxyError(proxy) from None
    try:
        _open(connection, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except ProxyError:
        connection.close()
        raise
    except OSError:
        connection.close()
        raise ProxyError(proxy) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _open(connection: Socket, proxy: Proxy, server: str) -> None:
    """Have the proxy connect to the server. Raises OSError and its branches, ProxyError among them."""
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}", "User-Agent: klearstack-vault"]
    if proxy.login is not None:
        login = b64encode(proxy.login.reveal().encode(errors="surrogateescape")).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    head = _head(connection)
    match, end = re.match(_STATUS, head), re.search(_END, head)
    if match is None:
        raise NoProxyError(proxy)
    if not match[1].startswith(b"2"):
        raise ProxyError(proxy, int(match[1]))
    if end is None:
        raise ConnectionResetError(errno.ECONNRESET, "closed")
    # After the head nothing may follow: the server waits for the first bytes of TLS.
    if end.end() != len(head):
        raise NoProxyError(proxy)


def _head(connection: Socket) -> bytes:
    """The bytes of a response up to the end of its head, or of the connection. Raises ConnectionResetError if there are none."""
    head, buffer = b"", bytearray(4096)
    while len(head) < _MOST and not re.search(_END, head):
        count = connection.recv_into(buffer)
        head += buffer[:count]
        if not count:
            break
    if not head:
        raise ConnectionResetError(errno.ECONNRESET, "closed")
    return head
