"""The hosts that may receive the token: KlearStack's own, and those that the user names."""

import re
from collections.abc import Collection

from vault_plugin.errors import QueryError, UsageError
from vault_plugin.settings import Settings

Authority = tuple[str, int]  # a host in lower case, and a port

# Without user information and escapes, which two programs may read in two ways.
_HOST = re.compile(
    r"((?:[a-z0-9-]+\.)*[a-z0-9-]+\.?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_URI = re.compile(r"https://([^/?#]*)([/?#].*)?", re.ASCII | re.IGNORECASE | re.DOTALL)


def check_hosts(hosts: Collection[str]) -> None:
    """Raises UsageError unless each of them is HOST or HOST:PORT."""
    if None in map(authority, hosts):
        raise UsageError("--host (KLEARSTACK_HELPER_HOSTS) takes HOST or HOST:PORT.")


def served_hosts(settings: Settings, hosts: Collection[str]) -> set[Authority]:
    """Return the hosts that may receive the token. Raises UsageError."""
    check_hosts(hosts)
    return {host for host in (*map(authority, hosts), _authority_of_uri(settings.url)) if host}


def require_served(uri: object, served: Collection[Authority]) -> None:
    """Raises QueryError unless this is an https URI of one of these hosts."""
    if _authority_of_uri(uri) not in served:
        raise QueryError(
            "The URI is not https, or is not of a host that the token is for.",
            hint="--host or KLEARSTACK_HELPER_HOSTS allows more hosts than KlearStack's own.",
        )


def authority(text: str) -> Authority | None:
    """Read HOST or HOST:PORT (443 by default); None if the text is neither."""
    match = _HOST.fullmatch(text)
    if match is None or not 0 < (port := int(match[2] or 443)) < 2**16:
        return None
    name = match[1].lower()
    if name[0] == "[":
        from ipaddress import IPv6Address  # noqa: PLC0415  few need it

        try:
            name = f"[{IPv6Address(name[1:-1])}]"
        except ValueError:
            return None
    return name, port


def _authority_of_uri(uri: object) -> Authority | None:
    match = _URI.fullmatch(uri) if isinstance(uri, str) else None
    return authority(match[1]) if match else None
