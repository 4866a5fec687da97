"""Proxies: how their URLs are read, and which servers NO_PROXY excludes, by the rules of Go, which Vault's tools follow."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from vault_plugin.settings.values import has_host, is_ascii
from vault_plugin.tokens.secret import Secret

_PREFIX = r"[0-9a-f.:]+/[0-9]{1,3}"
_PORT = 80  # of a URL without one, as in Go
_NO_PROXY = (
    "must look like http://[user:password@]host[:port], with special characters of the password percent-encoded, "
    "or be `none`; proxies at https:// and socks5:// are not supported"
)

_Address = IPv4Address | IPv6Address | None


class Proxy(NamedTuple):
    """The proxy for TLS connections; without a host there is none.

    `login`: user and password, separated by a colon. `exceptions`: the servers that are reached without it, as NO_PROXY
    lists them; None if all are reached through it.
    """

    host: str = ""
    port: int = _PORT
    login: Secret | None = None
    exceptions: str | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """The proxy of that URL or `host:port`; that of `none` has no host. Raises ValueError, which does not quote it."""
        text = text.strip()
        if text.lower() == "none":
            return cls()
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or "", _PORT if parts.port is None else parts.port
            valid = parts.scheme == "http" and has_host(parts) and port > 0
        except ValueError:
            valid = False
        if not valid or not is_ascii(text) or parts.path not in ("", "/") or set("?#\\") & set(text):
            raise ValueError(_NO_PROXY)
        user, password = (
            unquote(part or "", errors="surrogateescape") for part in (parts.username, parts.password)
        )
        return cls(host, port, Secret(f"{user}:{password}") if parts.username is not None else None)

    def excluding(self, exceptions: str) -> Self:
        """The same proxy, but not for the servers that NO_PROXY lists, nor for this host."""
        return self._replace(exceptions=exceptions)

    def serves(self, host: str, port: int) -> bool:
        """Whether the server at that host and port is reached through this proxy."""
        if not self.host:
            return False
        return self.exceptions is None or not _is_excluded(host.lower(), port, self.exceptions.lower())

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}" if self.host else "none"


def _is_excluded(host: str, port: int, exceptions: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    entries = [entry.strip() for entry in exceptions.split(",")]
    return "*" in entries or any(_matches(entry, host, address, port) for entry in entries if entry)


def _matches(entry: str, host: str, address: _Address, port: int) -> bool:
    """Whether one entry of NO_PROXY means that host, whose IP address is given if it is one."""
    if network := _network(entry):
        return address is not None and address in network
    name, given_port = _split(entry)
    if not name or given_port not in ("", str(port)):
        return False
    if own := _address(name):
        return own == address
    name = name.removeprefix("*") if name.startswith("*.") else name
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def _split(entry: str) -> tuple[str, str]:
    """Host and port of an entry; the port is empty if it names none."""
    if match := re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", entry):
        return match[1] or match[3] or "", match[2] or match[4] or ""
    return entry, ""


def _address(text: str) -> _Address:
    """The IP address, an IPv4 one also where IPv6 is its form; None if it is none."""
    try:
        address = ip_address("" if "%" in text else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    """The network in CIDR notation; None if it is none."""
    try:
        network = ip_network(entry, strict=False) if re.fullmatch(_PREFIX, entry) else None
    except ValueError:
        return None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if network and mapped and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
