"""git's credential helper protocol: git-credential(1)."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from itertools import takewhile

from vault_plugin.app import connect
from vault_plugin.errors import QueryError, TokenError
from vault_plugin.protocols.bearer import get_bearer
from vault_plugin.protocols.hosts import Authority, authority, served_hosts
from vault_plugin.protocols.query import MAX_QUERY, ON_STDIN
from vault_plugin.settings import Settings
from vault_plugin.tokens.jwt import Kind, Token

CAPABILITY = "version 0\ncapability authtype\n"
# The quoted texts of a WWW-Authenticate header, the last of which may be unterminated; and the Bearer challenge
# among others (RFC 9110).
_QUOTED = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
_BEARER = re.compile(r"(?:^|,)\s*bearer(?![^\s,])", re.ASCII | re.IGNORECASE)


def get(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """Return the credential for a git remote; empty for another host, so that git asks the next helper.

    The credential is a bearer token if git can send one (2.46) and the server does not exclude it, else a password.
    Raises QueryError if the query is not git's, UsageError for invalid hosts, and what Broker.get raises.
    """
    served = served_hosts(settings, hosts)
    asked, lists = _attributes(query)
    if not _is_for(asked, served):
        return ""
    token, expires_at = get_bearer(settings)
    if "authtype" in lists["capability[]"] and _takes_bearer(lists["wwwauth[]"]):
        credential = f"capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n"
    else:
        # Servers that accept a token as a password ignore the user name; this default is GitLab's.
        credential = f"username={asked.get('username') or 'oauth2'}\npassword={token}\n"
    return f"{credential}password_expiry_utc={expires_at}\n"


def erase(query: bytes, gather: Callable[[], Settings], hosts: Collection[str]) -> None:
    """Handle a credential that a server has rejected: if it is the stored token, the next call mints.

    The settings are gathered only if the credential can be one of our tokens. Raises QueryError if the query is not
    git's, and what Broker.reject raises.
    """
    asked, _ = _attributes(query)
    try:
        given = Token.from_jwt(asked.get("credential") or asked.get("password"), Kind.ACCESS)
    except TokenError:
        return
    settings = gather()
    if not _is_for(asked, served_hosts(settings, hosts)):
        return
    with connect(settings) as broker:
        broker.reject(settings.identity(), given.value)


def _attributes(query: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Parse git's attributes: single values, the last of which counts, and lists, which an empty value clears."""
    lines = (line.removesuffix("\r") for line in query.decode(errors="replace").split("\n"))
    pairs = [line.partition("=") for line in takewhile(bool, lines)]  # up to an empty one
    if len(query) > MAX_QUERY or not all(equals for _, equals, _ in pairs):
        raise QueryError(f"{ON_STDIN} is not in git's format.")
    lists: dict[str, list[str]] = defaultdict(list)
    for name, _, text in pairs:
        if text:
            lists[name].append(text)
        else:
            lists[name].clear()
    return {name: text for name, _, text in pairs if not name.endswith("[]")}, lists


def _takes_bearer(challenges: Collection[str]) -> bool:
    """Whether a server with these WWW-Authenticate headers (none: no request was sent yet) may accept a bearer token."""
    return not challenges or any(_BEARER.search(_QUOTED.sub("", one)) for one in challenges)


def _is_for(asked: Mapping[str, str], served: Collection[Authority]) -> bool:
    """Whether git asks for one of these hosts."""
    return asked.get("protocol") == "https" and authority(asked.get("host", "")) in served
