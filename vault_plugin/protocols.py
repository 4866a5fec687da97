"""What other programs ask for the token by: Kubernetes' ExecCredential, Bazel's and git's credential helpers.

Whoever names a host gets the token only for KlearStack's own, or one that the user has named. None of these programs
allows any leeway: each uses a token until the very second that we tell, so we tell an earlier one.
"""

import json
import re
import time
from collections.abc import Collection
from itertools import takewhile
from math import ceil, floor
from typing import Any

from vault_plugin.app import connect
from vault_plugin.clock import format_rfc3339
from vault_plugin.errors import QueryError, UsageError
from vault_plugin.settings import Settings
from vault_plugin.tokens import Token

MAX_QUERY = 64 * 1024  # bytes
SAFETY = 30.0  # seconds; never more than half of the token's life
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
GIT_CAPABILITY = "version 0\ncapability authtype\n"
# No user, no escapes: nothing that two programs might read in two ways.
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
_URI = re.compile(r"https://([^/?#]*)([/?#].*)?", re.ASCII | re.IGNORECASE | re.DOTALL)


def exec_credential(info: str, settings: Settings, hosts: Collection[str]) -> str:
    """Kubernetes' ExecCredential, of the version that KUBERNETES_EXEC_INFO asks for.

    Raises QueryError if that cannot be answered, and what Broker.get raises.
    """
    query = _object(info or json.dumps({"apiVersion": VERSIONS[0]}), "KUBERNETES_EXEC_INFO")
    if (version := query.get("apiVersion")) not in VERSIONS:
        raise QueryError("KUBERNETES_EXEC_INFO asks for another API than v1 and v1beta1.")
    try:
        server = query["spec"]["cluster"]["server"]  # with provideClusterInfo
    except (KeyError, TypeError):
        server = None
    if server is not None:
        _must_serve(server, settings, hosts)
    token, end = _bearer(settings)
    status = {"expirationTimestamp": format_rfc3339(end), "token": token}
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}) + "\n"


def bazel(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """The headers for a request of Bazel. Raises QueryError if it is for another host, and what Broker.get raises."""
    _must_serve(_object(query, "The query on standard input").get("uri"), settings, hosts)
    token, end = _bearer(settings)
    headers = {"Authorization": [f"Bearer {token}"]}
    return json.dumps({"headers": headers, "expires": format_rfc3339(end)}) + "\n"


def git(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """The credential for a remote of git; for another host nothing, and git asks the next helper.

    As a bearer token for a git that can send one (2.46), else as a password.
    Raises QueryError if the query is not git's, and what Broker.get raises.
    """
    asked, can_send_bearer = _attributes(query)
    host = _authority(asked.get("host", ""))
    if asked.get("protocol") != "https" or host not in _served(settings, hosts):
        return ""
    token, end = _bearer(settings)
    if can_send_bearer:
        answer = f"capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n"
    else:
        # Servers that take a token for a password look at no user name; GitLab's is as good as any.
        answer = f"username={asked.get('username') or 'oauth2'}\npassword={token}\n"
    return f"{answer}password_expiry_utc={end}\n"


def _object(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        query = json.loads(text if len(text) <= MAX_QUERY else "")
    except (ValueError, RecursionError):  # from None: the cause quotes the text
        raise QueryError(f"{name} is not JSON.") from None
    if not isinstance(query, dict):
        raise QueryError(f"{name} is no JSON object.")
    return query


def _attributes(query: bytes) -> tuple[dict[str, str], bool]:
    """What git says, and whether it can do `authtype`."""
    lines = takewhile(bool, query.decode(errors="replace").split("\n"))  # up to an empty one
    pairs = [line.partition("=") for line in lines]
    if len(query) > MAX_QUERY or not all(equals for _, equals, _ in pairs):
        raise QueryError("The query on standard input is not git's.")
    told = [(name, text) for name, _, text in pairs]
    return dict(told), ("capability[]", "authtype") in told


def _authority(text: str) -> tuple[str, int] | None:
    match = _HOST.fullmatch(text)
    return (match[1].lower(), int(match[2] or 443)) if match else None


def _of_uri(uri: object) -> tuple[str, int] | None:
    match = _URI.fullmatch(uri) if isinstance(uri, str) else None
    return _authority(match[1]) if match else None


def _served(settings: Settings, hosts: Collection[str]) -> set[tuple[str, int]]:
    others = {_authority(host) for host in hosts}
    if None in others:
        raise UsageError("--host (KLEARSTACK_HELPER_HOSTS) takes HOST or HOST:PORT.")
    return {host for host in others | {_of_uri(settings.url)} if host}


def _must_serve(uri: object, settings: Settings, hosts: Collection[str]) -> None:
    if _of_uri(uri) not in _served(settings, hosts):
        raise QueryError(
            "The URI is not https, or is not of a host that the token is for.",
            hint="--host or KLEARSTACK_HELPER_HOSTS adds one to KlearStack's own.",
        )


def _bearer(settings: Settings) -> tuple[str, int]:
    with connect(settings) as broker:
        grant = broker.get(settings.identity())
    held = grant.access
    return held.token.value.reveal(), until(held.token, grant.now + held.early, time.time())


def until(token: Token, now: float, here: float) -> int:
    """When a caller who goes by this host's clock (`here`; the servers': `now`) is to ask again; Unix seconds all."""
    left = token.expires_at - token.margin(SAFETY) - max(now, here)
    return max(ceil(here) + 1, floor(here + left))
