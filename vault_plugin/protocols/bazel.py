"""Bazel's credential helper protocol (EngFlow's specification)."""

import json
from collections.abc import Collection

from vault_plugin.protocols.bearer import get_bearer
from vault_plugin.protocols.hosts import require_served, served_hosts
from vault_plugin.protocols.query import json_object
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import format_rfc3339


def get_headers(query: bytes, settings: Settings, hosts: Collection[str]) -> str:
    """Return the headers for a request of Bazel.

    Raises QueryError if the request is for another host, UsageError for invalid hosts, and what Broker.get raises.
    """
    served = served_hosts(settings, hosts)
    require_served(json_object(query).get("uri"), served)
    token, expires_at = get_bearer(settings)
    headers = {"Authorization": [f"Bearer {token}"]}
    return json.dumps({"headers": headers, "expires": format_rfc3339(expires_at)}) + "\n"
