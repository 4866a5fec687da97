"""The Raft cluster that other tests use."""

from contextlib import closing
from pathlib import Path

from support.cli import World
from support.diagnosis import Diagnosis
from support.raft import Cluster, insist, raft_cluster, until

from vault_plugin.demo.simulator import Simulator
from vault_plugin.doctor.verdicts import Level


def _let_doctor_look_at_the_standby(cluster: Cluster, home: Path) -> None:
    """It forwards requests, until the active node ends and it knows no other. Here, since a cluster takes long to start."""
    leader = cluster.leader()
    (standby,) = [node for node in cluster.nodes if node is not leader and node.process.poll() is None]
    with Simulator() as endpoint, closing(cluster.vault()) as vault:
        world = World(endpoint, vault, "secret", home)
        forwards = "ok           Vault forwarding: it forwards requests to the active node."
        until(lambda: forwards in Diagnosis(world, VAULT_ADDR=standby.address).text)  # as soon as it knows it
        leader.kill()
        found = Diagnosis(world, VAULT_ADDR=standby.address)
        found.names("Vault forwarding", f"it redirects to {leader.address[7:]}", "Give all nodes of", 78)
        both = Diagnosis(world, VAULT_ADDR=f"{standby.address},{leader.address}")
        assert f"Vault {standby.address} forwarding: it redirects requests to {leader.address}" in both.text
        (down,) = both.of(Level.WARNING)
        assert down.check == f"Vault {leader.address} connection"


def test_the_cluster_elects_a_new_leader_and_keeps_its_data(tmp_path: Path) -> None:
    with raft_cluster() as cluster:
        with closing(cluster.vault()) as vault:
            vault.write("secret", "path", {"name": "value"})
        old = cluster.leader()
        old.kill()
        assert cluster.leader() is not old
        with closing(cluster.vault()) as vault:
            assert insist(vault.read, "secret", "path") == {"name": "value"}
        _let_doctor_look_at_the_standby(cluster, tmp_path)
    assert all(node.process.returncode is not None for node in cluster.nodes)
