"""The Raft cluster that other tests use."""

from contextlib import closing

from support.raft import raft_cluster


def test_the_cluster_elects_a_new_leader_and_keeps_its_data() -> None:
    with raft_cluster() as cluster:
        with closing(cluster.vault()) as vault:
            vault.write("secret", "path", {"name": "value"})
        old = cluster.leader()
        old.kill()
        assert cluster.leader() is not old
        with closing(cluster.vault()) as vault:
            assert vault.read("secret", "path") == {"name": "value"}
    assert all(node.process.returncode is not None for node in cluster.nodes)
