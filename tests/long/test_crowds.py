"""What tests/integration shows of some processes at once, of more of them."""

import json
from contextlib import closing
from pathlib import Path

from support.cli import World
from support.crowd import assert_one_mint
from support.raft import raft_cluster
from support.vault import Vault

from vault_plugin.demo.simulator import Simulator


def test_50_processes_at_once_on_a_cold_identity_mint_once(kv2: World) -> None:
    assert_one_mint(kv2, 50, "get")


def test_40_of_terraforms_at_once_mint_once(kv2: World) -> None:
    assert_one_mint(kv2, 40, "terraform", stdin=json.dumps({"user_id": "26", "company_name": "Acme"}))


def test_processes_that_talk_to_a_standby_mint_once_again_and_again(tmp_path: Path) -> None:
    with raft_cluster() as cluster, Simulator() as endpoint:
        address = next(node.address for node in cluster.nodes if node is not cluster.leader())
        with closing(Vault(address, cluster.root_token)) as vault:
            world = World(endpoint, vault, "secret", tmp_path)
            for number in range(3):
                assert_one_mint(world, 6, "get", "--user-id", f"standby{number}")
