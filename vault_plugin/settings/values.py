"""How the text of a setting is read: durations, URLs, paths, credentials. Each raises ValueError that does not quote it."""

import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from vault_plugin.tokens.secret import Secret

ENDPOINT_PATH = "/access/klearstack/getaccesstokenfromuserid"
_PORTS = {"http": 80, "https": 443}
# Patterns are compiled when they are needed, which takes time at each start.
_LOOPBACK = r"localhost|127(\.\d{1,3}){3}|::1"
_DURATION = r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,6})?)s?)?"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "": 1}
_GO_DURATION = r"[0-9]{1,9}|[0-9]{1,6}d|([0-9]{1,9}(\.[0-9]{1,9})?(h|m|s|ms|us|µs|ns))+"
_RATE = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?::([0-9]{1,9}))?"
_DNS_NAME = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*"
_IPV6 = r"[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*"
_ZONE = r"(%[A-Za-z0-9_.~-]+)?"
_SOCKET = r"unix:///[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"
_MAX_SOCKET = 107  # bytes of a path: 108 in unix(7), with the NUL at the end
_SEGMENTS = r"[A-Za-z0-9_@.~-]+(/[A-Za-z0-9_@.~-]+)*"


def duration(text: str) -> float:
    """Seconds of `90`, `1.5`, `90s`, `15m` or `1h30m`. Raises ValueError."""
    match = re.fullmatch(_DURATION, text.strip()) if text.strip() else None
    if match is None:
        raise ValueError("is not a duration such as 90, 90s, 15m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def positive_duration(text: str) -> float:
    """The same, more than 0. Raises ValueError."""
    if not (seconds := duration(text)):
        raise ValueError("must be more than 0 seconds")
    return seconds


def client_timeout(text: str) -> float | None:
    """Seconds of a duration as Vault's tools read them, such as `90`, `500ms` or `1m30s`; None for 0. Raises ValueError."""
    if not re.fullmatch(_GO_DURATION, text):
        raise ValueError("is not a duration such as 90, 500ms or 1m30s")
    parts = re.findall(r"([0-9.]+)([a-zµ]*)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) or None


def whole_number(text: str) -> int:
    """A whole number from 0. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("is not a whole number from 0")
    return int(text)


class RateLimit(NamedTuple):
    """So many requests per second, `burst` of them at once."""

    rate: float
    burst: int

    def __str__(self) -> str:
        return f"{self.rate:g}:{self.burst}"


def rate_limit(text: str) -> RateLimit | None:
    """The limit of `100`, `0.5` or `100:20`; None for 0, which limits nothing. Raises ValueError."""
    if not (match := re.fullmatch(_RATE, text)):
        raise ValueError(
            "is not a rate such as 100, 0.5 or 100:20 (requests per second, and how many at once)"
        )
    rate = float(match[1])
    return RateLimit(rate, max(1, int(match[2] or rate))) if rate else None


def certificates(text: str) -> str:
    """PEM text. Raises ValueError if there is no certificate in it."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ValueError("is not a certificate in PEM form")
    return text


def host_name(text: str) -> str:
    """A DNS name or an IP address. Raises ValueError."""
    if not re.fullmatch(f"{_DNS_NAME}|{_IPV6}", text):
        raise ValueError("is not a host name")
    return text


def vault_path(text: str) -> str:
    """A mount or prefix such as `secret` or `team/kv`, without outer slashes. Raises ValueError.

    Only characters that have no special meaning in a URL or a policy; no segment that leads to another path.
    """
    path = text.strip("/")
    if not re.fullmatch(_SEGMENTS, path) or {".", ".."} & set(path.split("/")):
        raise ValueError("may contain only letters, digits and _@.~- in segments separated by single slashes")
    return path


def vault_namespace(text: str) -> str:
    """A namespace of any depth, such as `team/ci`; empty for the root namespace: `root` or `/`. Raises ValueError."""
    return "" if text.strip("/") in {"", "root"} else vault_path(text)


def user_name(text: str) -> str:
    """The name of a user of Vault, which becomes one segment of a path. Raises ValueError."""
    if not text.isprintable() or "/" in text or text.strip() in {"", ".", ".."}:
        raise ValueError(
            "is not a user name: it may contain neither a slash nor characters that are not printable"
        )
    return text


def password(text: str) -> Secret:
    """A password, exactly as given. Raises ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    return Secret(text)


def _url(text: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and parts.port != 0 and parts.username is None
        valid = valid and is_ascii(text) and not set("?#\\") & set(text) and has_host(parts)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            f"must look like {schemes[-1]}://host[:port], without user, password, query or fragment"
        )
    return text.rstrip("/")


def is_plain_and_remote(url: str) -> bool:
    """Whether the network between here and there could read what is sent."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not re.fullmatch(_LOOPBACK, parts.hostname or "")


def endpoint_url(text: str) -> str:
    """KlearStack's base URL. Raises ValueError."""
    return _url(text, ("http", "https")).removesuffix(ENDPOINT_PATH).rstrip("/")


def vault_addresses(text: str) -> tuple[str, ...]:
    """One or more nodes of one cluster, separated by commas; `unix:///path` is a socket. Raises ValueError."""
    addresses = tuple(
        _socket(part) if re.fullmatch(_SOCKET, part) else _without_double_slashes(part)
        for part in (part.strip(" ") for part in text.split(","))
    )
    if any({"v1", "ui"} & set(urlsplit(one).path.split("/")) for one in addresses if one.startswith("http")):
        raise ValueError("contains /v1 or /ui: give Vault's address without them")
    return addresses


def _socket(text: str) -> str:
    """The address of a unix socket. Raises ValueError if the kernel takes no path of that length."""
    if len(text.removeprefix("unix://").encode(errors="replace")) > _MAX_SOCKET:
        raise ValueError(f"names a unix socket with a path of more than {_MAX_SOCKET} bytes")
    return text


def _without_double_slashes(text: str) -> str:
    """The address of a node, as Vault 2.0 accepts it. Raises ValueError."""
    scheme, _, rest = _url(text, ("http", "https")).partition("://")
    return f"{scheme}://{re.sub('//+', '/', rest) if '//' in rest else rest}"


def is_ascii(text: str) -> bool:
    """Whether all characters are printable ones of ASCII, other than the space."""
    return text.isascii() and text.isprintable() and " " not in text


def has_host(url: SplitResult) -> bool:
    """Whether the host of a URL is an IP address, or a name with labels of no more characters than DNS permits (63).

    Other characters than those of `_DNS_NAME` are what remains of a pattern or of a variable that was not replaced.
    """
    in_brackets = url.netloc.rpartition("@")[2].startswith("[")
    pattern = _IPV6 + _ZONE if in_brackets else rf"{_DNS_NAME}\.?"
    return re.fullmatch(pattern, url.hostname or "") is not None


def actions_url(text: str) -> str:
    """Where GitHub Actions issues ID tokens: a URL with a query. Raises ValueError."""
    parts = None
    with suppress(ValueError):  # which quotes it
        parts = urlsplit(text) if is_ascii(text) else None
    if parts is None or not parts.query or parts.fragment:
        raise ValueError("is not a URL with a query, as GitHub Actions sets it")
    _url(f"{parts.scheme}://{parts.netloc}", ("http", "https"))
    if is_plain_and_remote(text):
        raise ValueError("must begin with https://, since a token is sent there")
    return text


def credential(text: str) -> Secret | None:
    """A token or an ID to log in with, without the white space around it; None if nothing else is there. Raises ValueError."""
    text = text.strip()  # a trailing newline would end up in a header
    if not (text.isascii() and text.isprintable()):
        raise ValueError("contains characters that are not allowed in a credential")
    return Secret(text) if text else None


def issuer(url: str) -> str:
    """The name of the endpoint at a base URL: the same text for each spelling of its scheme, host and port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".")
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
