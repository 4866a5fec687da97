"""What responds where Vault should, and is not Vault: told by status, content type and form, never by its text."""

import json
import re
from email.message import Message
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from vault_plugin.wording import named

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
_ADDRESS = named("vault_addr")
_ADVICE = f"Check {_ADDRESS}: Vault's own address, and not that of a web page, a proxy or its login page."
_LOGINS = {
    401: f"A server that wants a login of its own responds there. Check {_ADDRESS}.",
    407: f"A proxy that wants a login responds there, and requests to Vault use no proxy. Check {_ADDRESS}.",
}
_SWITCHES = {
    ("http", "https"): f"Use https:// in {_ADDRESS}.",
    ("https", "http"): f"Nothing is sent without TLS to what {_ADDRESS} names with https://.",
}


def is_of_vault(status: int, body: bytes) -> bool:
    """Whether Vault itself may have answered: by JSON objects, with errors in a list; empty where there is nothing to say."""
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
    """What responded, as a part of a sentence."""
    if is_page(headers, body):
        what = "an HTML page"
    elif not body.strip():
        what = "an empty response"
    elif body.lstrip()[:1] in b'{["':
        what = "JSON, but not in Vault's form"
    else:
        what = "neither JSON nor HTML"
    return f"what responds there is not Vault (status {status}, {what})"


def advice(status: int) -> str:
    """What to do about it."""
    return _LOGINS.get(status, _ADVICE)


class Redirect(NamedTuple):
    """Where a redirect leads: `place` is scheme and host with port, empty where it names none that can be shown.

    `standby`: whether one node of a cluster points to another one: by a 307 to the path that was asked for. `advice` is for
    any other.
    """

    status: int
    place: tuple[str, str]
    standby: bool
    advice: str

    @classmethod
    def of(cls, status: int, headers: Message, node: str, path: str) -> Self:
        """The redirect of a request for that path, which begins with `/v1/`, to that node."""
        location = headers.get("Location") or ""
        asked, place = place_of(node), place_of(location)
        same_host = bool(place[1]) and _hostname(asked[1]) == _hostname(place[1])
        switch = _SWITCHES.get((asked[0], place[0])) if same_host else None
        same_path = not place[1] or urlsplit(location).path.endswith(path.partition("?")[0])
        standby = status == 307 and same_path and switch is None
        return cls(status, place, standby, switch or _ADVICE)

    @property
    def host(self) -> str:
        """The host that it names, with its port; empty if it cannot be shown."""
        return self.place[1]

    def __str__(self) -> str:
        to = f" to {self.place[0]}://{self.host}" if self.host else ""
        return f"what responds there is not Vault (status {self.status}, a redirect{to})"


def _hostname(host: str) -> str | None:
    return urlsplit(f"//{host}").hostname


def place_of(url: str) -> tuple[str, str]:
    """Scheme and host with port, without a user; empty texts if it is no URL with a host."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "", ""
    host = parts.netloc.rpartition("@")[2]
    return (parts.scheme, host) if parts.scheme in ("http", "https") and _HOST.fullmatch(host) else ("", "")
