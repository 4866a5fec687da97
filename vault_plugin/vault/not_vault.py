"""Recognizes a server that is not Vault, by status, content type and form, and never quotes its text."""

import json
import re
from email.message import Message
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from vault_plugin.wording import named

_HOST = r"[A-Za-z0-9.:\[\]_-]{1,255}"
_ADDRESS = named("vault_addr")
_ADVICE = f"Check that {_ADDRESS} is Vault's own address and not that of a web page, a proxy or a login page."
_LOGINS = {
    401: f"The server there requires a login of its own. Check {_ADDRESS}.",
    407: f"The server there is a proxy that requires a login. Name it with {named('vault_proxy')}, and Vault's own address with {_ADDRESS}.",
}
_SWITCHES = {
    ("http", "https"): f"Use https:// in {_ADDRESS}.",
    ("https", "http"): f"No request is sent without TLS, since {_ADDRESS} has https://.",
}


def is_of_vault(status: int, body: bytes) -> bool:
    """Whether the response can be Vault's: a JSON object, with a list of errors for an error, or an empty 204 or 400."""
    if not body.strip():
        return status in {204, 400}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    is_error = status >= 400
    return isinstance(content, dict) and (not is_error or bool(content.keys() & {"errors", "data"}))


def is_page(headers: Message, body: bytes) -> bool:
    """Whether it is HTML."""
    return "html" in headers.get_content_subtype() or body.lstrip()[:1] == b"<"


def described(status: int, headers: Message, body: bytes) -> str:
    """What the server is, as part of a sentence."""
    if is_page(headers, body):
        what = "an HTML page"
    elif not body.strip():
        what = "an empty response"
    elif body.lstrip()[:1] in b'{["':
        what = "JSON, but not in Vault's form"
    else:
        what = "neither JSON nor HTML"
    return f"the server there is not Vault (status {status}, {what})"


def advice(status: int) -> str:
    """What to do next."""
    return _LOGINS.get(status, _ADVICE)


class Redirect(NamedTuple):
    """A redirect: `place` is scheme and host with port, both empty if it names none that can be shown.

    `standby`: whether a standby node may have sent it, which redirects to the requested path by a 307. `advice` says what to
    do about any other redirect.
    """

    status: int
    place: tuple[str, str]
    standby: bool
    advice: str

    @classmethod
    def of(cls, status: int, headers: Message, node: str, path: str) -> Self:
        """The redirect of a request to `node` for `path`, which begins with `/v1/`."""
        location = headers.get("Location") or ""
        requested, place = place_of(node), place_of(location)
        same_host = bool(place[1]) and _hostname(requested[1]) == _hostname(place[1])
        switch = _SWITCHES.get((requested[0], place[0])) if same_host else None
        same_path = not place[1] or urlsplit(location).path.endswith(path.partition("?")[0])
        standby = status == 307 and same_path and switch is None
        return cls(status, place, standby, switch or _ADVICE)

    @property
    def host(self) -> str:
        """The host with its port; empty if it cannot be shown."""
        return self.place[1]

    def __str__(self) -> str:
        to = f" to {self.place[0]}://{self.host}" if self.host else ""
        return f"the server there is not Vault (status {self.status}, a redirect{to})"


def _hostname(host: str) -> str | None:
    return urlsplit(f"//{host}").hostname


def place_of(url: str) -> tuple[str, str]:
    """Scheme and host with port, without the user; both empty if it is not a URL with a host."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "", ""
    host = parts.netloc.rpartition("@")[2]
    return (
        (parts.scheme, host) if parts.scheme in ("http", "https") and re.fullmatch(_HOST, host) else ("", "")
    )
