"""OpenBao in production's shape: several processes on loopback which keep one store by Raft, and can be killed."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import hvac
import requests
from hvac.exceptions import VaultError

from support.ports import own_port
from support.vault import Vault, configure
from vault_plugin.demo.embedded import binary, stop

Found = TypeVar("Found")

READY_WITHIN = 60.0  # seconds; it takes about 6, most of it until the last node may vote

# The multiplier makes elections take one or two seconds instead of ten. Autopilot lets a node vote when it has seen it
# healthy for a while; until then the death of the leader would be the death of the cluster.
CONFIG = """
api_addr = "{address}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}
storage "raft" {{
  path = "{folder}"
  node_id = "{name}"
  performance_multiplier = 1
  autopilot_reconcile_interval = "200ms"
  autopilot_update_interval = "200ms"
}}
"""


@dataclass
class Node:
    """One server. Its `admin` client asks it alone, and follows no redirect to the leader."""

    address: str
    process: subprocess.Popen[bytes]
    admin: Any

    def kill(self) -> None:
        """End it without a chance to say goodbye (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as an administrator would (SIGTERM)."""
        stop(self.process)

    def leads(self) -> bool:
        try:
            return self.process.poll() is None and bool(self.admin.sys.read_leader_status()["is_self"])
        except (requests.RequestException, VaultError):
            return False


@dataclass
class Cluster:
    nodes: list[Node]
    root_token: str

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    def leader(self, within: float = 30.0) -> Node:
        """The node that leads, waiting for an election if there must be one (seconds)."""
        return until(lambda: next((node for node in self.nodes if node.leads()), None), within)

    def vault(self) -> Vault:
        """A handle on the node that leads now; to be closed."""
        return Vault(self.leader().address, self.root_token)


@contextmanager
def raft_cluster(size: int = 3) -> Iterator[Cluster]:
    """Run that many nodes until all of them may vote. KV v2 is mounted at `secret/`."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raft-")))
        first, *others = nodes = [_start(stack, home / f"node{number}") for number in range(size)]
        made = insist(first.admin.sys.initialize, 1, 1)
        for node in nodes:
            node.admin.token = made["root_token"]
        insist(first.admin.sys.submit_unseal_key, made["keys"][0])
        until(first.leads)
        for node in others:
            # By hand, for `retry_join` would look for a leader but every two seconds.
            insist(node.admin.sys.join_raft_cluster, first.address)
            insist(node.admin.sys.submit_unseal_key, made["keys"][0])
        until(lambda: _voters(first) == size)
        insist(first.admin.sys.enable_secrets_engine, "kv", "secret", options={"version": "2"})
        configure(first.admin, "secret", {})
        yield Cluster(nodes, made["root_token"])


def until(probe: Callable[[], Found | None], within: float = READY_WITHIN) -> Found:
    """The first true answer, asked for every 50 ms. Raises TimeoutError."""
    end = time.monotonic() + within
    while not (answer := probe()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within:.0f} s")
        time.sleep(0.05)
    return answer


def _start(stack: ExitStack, home: Path) -> Node:
    folder = home / "raft"
    folder.mkdir(parents=True)
    port, cluster_port = own_port(), own_port()
    address = f"http://127.0.0.1:{port}"
    config = home / "config.hcl"
    config.write_text(
        CONFIG.format(address=address, port=port, cluster_port=cluster_port, folder=folder, name=home.name)
    )
    process = subprocess.Popen(
        [binary(), "server", f"-config={config}"],
        env={"HOME": str(home), "TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    stack.callback(stop, process)
    admin = hvac.Client(address, token="", allow_redirects=False)
    stack.callback(admin.adapter.close)
    return Node(address, process, admin)


def insist(call: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """Call until it succeeds: the server may not be there yet, or have no leader."""

    def attempt() -> Any:
        with suppress(requests.RequestException, VaultError):
            return call(*arguments, **options)
        return None

    return until(attempt)


def _voters(node: Node) -> int:
    servers = insist(node.admin.sys.read_raft_config)["data"]["config"]["servers"]
    return sum(server["voter"] for server in servers)
