"""What other programs ask for the token by: Kubernetes' ExecCredential, Bazel's and git's credential helpers.

Whoever names a host gets the token only for KlearStack's own, or one that the user has named. None of these programs
allows any leeway: each uses a token until the very second that we tell, so we tell an earlier one.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from itertools import takewhile
from math import ceil, floor
from typing import Any

from vault_plugin.app import connect
from vault_plugin.errors import QueryError, TokenError, UsageError
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.jwt import Kind, Token

MAX_QUERY = 64 * 1024  # bytes
MAX_EXEC_INFO = 1024 * 1024  # bytes; the cluster's CA certificates are in it
SAFETY = 30.0  # seconds; never more than half of the token's life
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
GIT_CAPABILITY = "version 0\ncapability authtype\n"
# No user, no escapes: nothing that two programs might read in two ways.
_HOST = re.compile(
    r"((?:[a-z0-9-]+\.)*[a-z0-9-]+\.?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_URI = re.compile(r"https://([^/?#]*)([/?#].*)?", re.ASCII | re.IGNORECASE | re.DOTALL)
# A WWW-Authenticate header's quoted texts, the last of which may have no end; and a challenge among others (RFC 9110).
_QUOTED = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
_BEARER = re.compile(r"(?:^|,)\s*bearer(?![^\s,])", re.ASCII | re.IGNORECASE)


def exec_credential(
    info: str, settings: Settings, hosts: Collection[str], *, any_cluster: bool = False
) -> str:
    """Kubernetes' ExecCredential, of the version that KUBERNETES_EXEC_INFO asks for.

    A cluster that is named must be one of ours; with `any_cluster` it need not be named. Raises QueryError if that is
    not so, UsageError for hosts that are none, and what Broker.get raises.
    """
    served = _served(settings, hosts)
    query = _object(info or json.dumps({"apiVersion": VERSIONS[0]}), "KUBERNETES_EXEC_INFO", MAX_EXEC_INFO)
    if (version := query.get("apiVersion")) not in VERSIONS:
        raise QueryError("KUBERNETES_EXEC_INFO asks for another API than v1 and v1beta1.")
    server = _server(query)
    if server is not None:
        _must_serve(server, served)
    elif not any_cluster:
        raise QueryError(
            "KUBERNETES_EXEC_INFO does not name the cluster that the token is for.",
            hint="Set `provideClusterInfo: true` in the kubeconfig, or pass --any-cluster to answer without it.",
        )
    token, end = _bearer(settings)
    status = {"expirationTimestamp": format_rfc3339(end), "token": token}
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}) + "\n"


def bazel(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """The headers for a request of Bazel.

    Raises QueryError if it is for another host, UsageError for hosts that are none, and what Broker.get raises.
    """
    served = _served(settings, hosts)
    _must_serve(_object(query, "The query on standard input", MAX_QUERY).get("uri"), served)
    token, end = _bearer(settings)
    headers = {"Authorization": [f"Bearer {token}"]}
    return json.dumps({"headers": headers, "expires": format_rfc3339(end)}) + "\n"


def git(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """The credential for a remote of git; for another host nothing, and git asks the next helper.

    As a bearer token for a git that can send one (2.46) to a server that does not rule it out, else as a password.
    Raises QueryError if the query is not git's, UsageError for hosts that are none, and what Broker.get raises.
    """
    served = _served(settings, hosts)
    asked, lists = _attributes(query)
    if not _is_for(asked, served):
        return ""
    token, end = _bearer(settings)
    if "authtype" in lists["capability[]"] and _takes_bearer(lists["wwwauth[]"]):
        answer = f"capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n"
    else:
        # Servers that take a token for a password look at no user name; GitLab's is as good as any.
        answer = f"username={asked.get('username') or 'oauth2'}\npassword={token}\n"
    return f"{answer}password_expiry_utc={end}\n"


def git_erase(query: bytes, gather: Callable[[], Settings], hosts: Collection[str]) -> None:
    """What git says when a server has rejected a credential: if it is the stored token, the next call mints.

    The settings are gathered only for what may be a token of ours. Raises QueryError if the query is not git's, and what
    Broker.reject raises.
    """
    asked, _ = _attributes(query)
    try:
        given = Token.from_jwt(asked.get("credential") or asked.get("password"), Kind.ACCESS)
    except TokenError:
        return
    settings = gather()
    if not _is_for(asked, _served(settings, hosts)):
        return
    with connect(settings) as broker:
        broker.reject(settings.identity(), given.value)


def check_hosts(hosts: Collection[str]) -> None:
    """Raises UsageError unless each of them is HOST or HOST:PORT."""
    if None in map(_authority, hosts):
        raise UsageError("--host (KLEARSTACK_HELPER_HOSTS) takes HOST or HOST:PORT.")


def _object(text: str | bytes, name: str, limit: int) -> dict[str, Any]:
    """A JSON object of at most so many bytes."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        query = json.loads(raw if len(raw) <= limit else b"")
    except (ValueError, RecursionError):  # from None: the cause quotes the text
        raise QueryError(f"{name} is not JSON.") from None
    if not isinstance(query, dict):
        raise QueryError(f"{name} is no JSON object.")
    return query


def _server(query: Mapping[str, Any]) -> str | None:
    """The cluster's server; None where the cluster is not told of, as without provideClusterInfo."""
    spec = query.get("spec")
    cluster = spec.get("cluster") if isinstance(spec, dict) else spec
    if cluster is None:
        return None
    server = cluster.get("server") if isinstance(cluster, dict) else None
    if not isinstance(server, str):
        raise QueryError("KUBERNETES_EXEC_INFO has a `spec.cluster` without the address of its server.")
    return server


def _attributes(query: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What git says: single values, the last of which counts, and lists, which an empty value clears."""
    lines = (line.removesuffix("\r") for line in query.decode(errors="replace").split("\n"))
    pairs = [line.partition("=") for line in takewhile(bool, lines)]  # up to an empty one
    if len(query) > MAX_QUERY or not all(equals for _, equals, _ in pairs):
        raise QueryError("The query on standard input is not git's.")
    lists: dict[str, list[str]] = defaultdict(list)
    for name, _, text in pairs:
        if text:
            lists[name].append(text)
        else:
            lists[name].clear()
    return {name: text for name, _, text in pairs if not name.endswith("[]")}, lists


def _takes_bearer(challenges: Collection[str]) -> bool:
    """Whether a server with these WWW-Authenticate headers (none: it has not been asked) may take a bearer token."""
    return not challenges or any(_BEARER.search(_QUOTED.sub("", one)) for one in challenges)


def _authority(text: str) -> tuple[str, int] | None:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < (port := int(match[2] or 443)) < 2**16:
        return None
    name = match[1].lower()
    if name[0] == "[":
        from ipaddress import IPv6Address  # noqa: PLC0415  which few need

        try:
            name = f"[{IPv6Address(name[1:-1])}]"
        except ValueError:
            return None
    return name, port


def _of_uri(uri: object) -> tuple[str, int] | None:
    match = _URI.fullmatch(uri) if isinstance(uri, str) else None
    return _authority(match[1]) if match else None


def _served(settings: Settings, hosts: Collection[str]) -> set[tuple[str, int]]:
    """The hosts that may see the token. Raises UsageError."""
    check_hosts(hosts)
    return {host for host in (*map(_authority, hosts), _of_uri(settings.url)) if host}


def _is_for(asked: Mapping[str, str], served: Collection[tuple[str, int]]) -> bool:
    """Whether git asks for one of these hosts."""
    return asked.get("protocol") == "https" and _authority(asked.get("host", "")) in served


def _must_serve(uri: object, served: Collection[tuple[str, int]]) -> None:
    if _of_uri(uri) not in served:
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
