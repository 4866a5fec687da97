"""A sync of many identities under Vault's rate limit quotas, for minutes: only `.ci/full` runs this."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.cli import COMMAND, World
from support.quotas import Audited, audited_vault

from vault_plugin.demo.simulator import Simulator

TOKENS = ("access", "refresh")


def synced(world: World, users: int, *options: str) -> Counter[str]:
    """How many identities of a sync ended in which way."""
    path, report = world.home / "manifest.csv", world.home / "report.jsonl"
    path.write_text("user_id\n" + "".join(f"{user}\n" for user in range(users)))
    subprocess.run(
        [*COMMAND, "sync", str(path), "--report", str(report), *options],
        env=world.environ,
        check=False,
        timeout=1800,
    )
    return Counter(json.loads(line)["result"] for line in report.read_text().splitlines())


def late(vault: Audited, mount: str, users: int) -> list[tuple[int, str, float | None]]:
    """The tokens that are missing, or that Vault keeps beyond their JWTs' lives."""
    found = [(user, kind, vault.lateness(mount, user, kind)) for user in range(users) for kind in TOKENS]
    return [one for one in found if one[2] is None or one[2] > 0]


@pytest.mark.parametrize(("rate", "users"), [(10, 100), (5, 100), (1, 10)])
def test_all_are_stored_on_time_and_hardly_any_write_is_repeated(
    tmp_path: Path, rate: int, users: int
) -> None:
    with audited_vault(tmp_path) as vault, Simulator() as endpoint:
        free = World(endpoint, vault, vault.mount("v2"), tmp_path)
        assert synced(free, users) == {"minted": users}
        unthrottled = vault.writes(free.mount).total()
        limited = World(endpoint, vault, vault.mount("v2"), tmp_path)
        vault.limit(limited.mount, rate)
        results = synced(limited, users)
        vault.unlimit()
        assert results == {"minted": users}
        assert endpoint.mints == 2 * users
        assert late(vault, limited.mount, users) == []
        writes = vault.writes(limited.mount)
        assert max(count for path, count in writes.items() if path.startswith("data/")) <= 2
        if rate > 1:
            assert writes.total() <= 1.1 * unthrottled
