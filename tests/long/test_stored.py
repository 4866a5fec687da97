"""Thousands of paths, and few requests a second: they are listed and deleted all the same, in little memory."""

import json
import subprocess
from collections import Counter
from pathlib import Path

from support.bulk import manifest, peak_memory, sync
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.quotas import audited_vault

from vault_plugin.demo.simulator import Simulator


def output_and_peak(world: World, *arguments: str, **environ: str) -> tuple[str, float]:
    """What the command prints, and the most that it has in memory (MB). Asserts that it succeeds."""
    path = world.home / "out"
    with path.open("w") as out:
        process = subprocess.Popen([*COMMAND, *arguments], env=world.environ | environ, stdout=out)
        peak = peak_memory(process)
    assert process.returncode == 0
    return path.read_text(), peak


def test_thousands_of_paths_are_listed_and_deleted_by_two_requests_each(kv2: World) -> None:
    count = 2_000
    assert sync(kv2, manifest(kv2, range(count), "name: production\n"))[0] == 0
    with FaultProxy(kv2.vault.address) as proxy:
        out, peak = output_and_peak(kv2, "status", "--format", "json", VAULT_ADDR=proxy.address)
        assert len(json.loads(out)["tokens"]) == 2 * count
        asked = Counter(line.split()[0] for line in proxy.requests)
    assert asked["LIST"] == 2
    assert 2 * count < asked["GET"] <= 2 * count + 16  # with those about the mount
    few = manifest(kv2, range(50, count), "name: production\n")
    out, pruning = output_and_peak(kv2, "sync", "--prune", few)
    assert out.endswith("100 paths of 50 identities pruned\n")
    out, deleting = output_and_peak(kv2, "delete", "--all", "--yes")
    assert out == f"{2 * (count - 50):,} paths of {count - 50:,} identities deleted\n"
    assert 10 < max(peak, pruning, deleting) < 80
    assert kv2.run("status").stdout == f"No tokens in {kv2.mount}/klearstack\n"


def test_a_rate_limit_quota_is_kept(tmp_path: Path) -> None:
    with audited_vault(tmp_path) as vault, Simulator() as endpoint:
        world = World(endpoint, vault, vault.mount("v2"), tmp_path)
        assert sync(world, manifest(world, range(60)))[0] == 0
        vault.limit(world.mount, 20)
        with FaultProxy(vault.address) as proxy:
            out, _ = output_and_peak(world, "status", "--format", "json", VAULT_ADDR=proxy.address)
            assert len(json.loads(out)["tokens"]) == 120
            assert len(proxy.requests) < 250  # most of them are accepted
        out, _ = output_and_peak(world, "delete", "--all", "--yes")
        assert out == "120 paths of 60 identities deleted\n"
