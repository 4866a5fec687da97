"""Kubernetes' ExecCredential (client.authentication.k8s.io), for kubectl and other client-go programs."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from vault_plugin.errors import QueryError
from vault_plugin.protocols.bearer import get_bearer
from vault_plugin.protocols.hosts import require_served, served_hosts
from vault_plugin.protocols.query import json_object
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import format_rfc3339

MAX_EXEC_INFO = 1024 * 1024  # bytes; the cluster's CA certificates are in it
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


def exec_credential(
    info: str, settings: Settings, hosts: Collection[str], *, any_cluster: bool = False
) -> str:
    """Return an ExecCredential of the version that KUBERNETES_EXEC_INFO asks for.

    A cluster that the caller names must be one of the served hosts; with `any_cluster` the caller need not name one.
    Raises QueryError if that does not hold, UsageError for invalid hosts, and what Broker.get raises.
    """
    served = served_hosts(settings, hosts)
    text = info or json.dumps({"apiVersion": VERSIONS[0]})
    query = json_object(text, "KUBERNETES_EXEC_INFO", MAX_EXEC_INFO)
    if (version := query.get("apiVersion")) not in VERSIONS:
        raise QueryError("KUBERNETES_EXEC_INFO asks for an API version other than v1 and v1beta1.")
    server = _server(query)
    if server is not None:
        require_served(server, served)
    elif not any_cluster:
        raise QueryError(
            "KUBERNETES_EXEC_INFO does not name the cluster that the token is for.",
            hint="Set `provideClusterInfo: true` in the kubeconfig, or pass --any-cluster to answer without it.",
        )
    token, expires_at = get_bearer(settings)
    status = {"expirationTimestamp": format_rfc3339(expires_at), "token": token}
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}) + "\n"


def _server(query: Mapping[str, Any]) -> str | None:
    """Return the cluster's server; None without a cluster, which means that provideClusterInfo is not set."""
    spec = query.get("spec")
    cluster = spec.get("cluster") if isinstance(spec, dict) else spec
    if cluster is None:
        return None
    server = cluster.get("server") if isinstance(cluster, dict) else None
    if not isinstance(server, str):
        raise QueryError("KUBERNETES_EXEC_INFO has a `spec.cluster` without the address of its server.")
    return server
