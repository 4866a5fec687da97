"""Syncs of many identities, and what is promised whatever their number."""

import json
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.vault import Vault
from support.waiting import until
from vault_plugin.timing.clock import parse_rfc3339

Report = list[dict[str, Any]]


def manifest(world: World, users: range | list[int], head: str = "") -> str:
    """A manifest of these users of Acme; its path."""
    path = world.home / "manifest.yaml"
    rows = "".join(f"- user_id: {user}\n" for user in users)
    path.write_text(f"defaults: {{company_name: Acme}}\n{head}identities:\n{rows or '  []'}")
    return str(path)


def sync(world: World, path: str, *options: str, **environ: str | None) -> tuple[int, str, str, Report]:
    """Exit code, both streams and the report."""
    report = world.home / "report.jsonl"
    done = world.run("sync", path, "--report", str(report), *options, **environ)
    return done.returncode, done.stdout, done.stderr, read(report)


def read(report: Path) -> Report:
    return [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def results(report: Report) -> dict[str, int]:
    return dict(Counter(row["result"] for row in report))


def ends(vault: Vault, mount: str, user: object) -> tuple[float, float]:
    """When the access token in Vault expires, and when Vault drops it (Unix seconds)."""
    secret = vault.admin.secrets.kv.v2.read_secret_version(
        f"klearstack/Acme/{user}/access", mount_point=mount, raise_on_deleted_version=True
    )["data"]
    dates = secret["data"]["expires_at"], secret["metadata"]["deletion_time"]
    expires_at, deletion_time = (parse_rfc3339(date) for date in dates)
    assert expires_at is not None
    assert deletion_time is not None
    return expires_at, deletion_time


def peak_memory(process: subprocess.Popen[Any]) -> float:
    """The most that it has in memory until it ends (MB). getrusage would also count what we had when we forked."""
    peaks = [0]

    def is_over() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks.extend(map(int, re.findall(r"VmHWM:\s+(\d+) kB", status)))
        return process.poll() is not None

    until(is_over, 120)
    return max(peaks) / 1024


def assert_a_second_run_only_reads(world: World, count: int) -> None:
    """All are minted and gone in time, and a second run only reads."""
    path = manifest(world, range(count))
    code, out, err, report = sync(world, path)
    assert (code, out, err) == (0, f"{count} identities: {count} minted\n", "")
    assert sorted(int(row["user_id"]) for row in report) == list(range(count))
    assert world.endpoint.mints == count
    for row in report:
        expires_at, deletion_time = ends(world.vault, world.mount, row["user_id"])
        assert row["expires_at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_at))
        assert expires_at - 3 <= deletion_time <= expires_at
    with FaultProxy(world.vault.address) as proxy:
        code, out, _, report = sync(world, path, VAULT_ADDR=proxy.address)
    assert (code, out, results(report)) == (0, f"{count} identities: {count} fresh\n", {"fresh": count})
    assert world.endpoint.requests == count
    assert Counter(line.split()[0] for line in proxy.requests) == {"GET": count + mount_looks(proxy)}


def mount_looks(proxy: FaultProxy) -> int:
    """Requests that ask about the mount: one, or as many as began at the same time.

    With one about the Vault token, where a loaded machine has taken so long that it is looked up.
    """
    looks = sum("/sys/internal/ui/mounts/" in line for line in proxy.requests)
    assert 1 <= looks <= 16
    return looks + sum("/auth/token/lookup-self" in line for line in proxy.requests)


def assert_connections_are_kept(world: World, count: int) -> None:
    """No more are made than there are workers, and memory stays flat."""
    path = manifest(world, range(count))
    with FaultProxy(world.endpoint.url) as endpoint, FaultProxy(world.vault.address) as vault:
        environ = world.environ | {"KLEARSTACK_URL": endpoint.address, "VAULT_ADDR": vault.address}
        with subprocess.Popen([*COMMAND, "sync", path, "--concurrency", "4"], env=environ) as process:
            peak = peak_memory(process)
        assert process.returncode == 0
        # The renewal of the Vault token has a thread and a connection of its own.
        renewal = any("/auth/token/lookup-self" in line for line in vault.requests)
        made = endpoint.connections(), vault.connections() - renewal
        assert 1 <= min(made) <= max(made) <= 4, made
        asked = Counter(re.findall(r"(?m)^(\w+) /v1/[^/]+/(data|metadata)/", "\n".join(vault.requests)))
        assert asked["GET", "data"] == count * 2
        # On a loaded machine a life is now and then set again, since so much of it has passed.
        assert count * 2 <= asked["POST", "metadata"] <= count * 2.1
        assert count * 2 <= asked["POST", "data"] <= count * 2.1
        assert len(vault.requests) == asked.total() + mount_looks(vault)
    assert 10 < peak < 150


def assert_a_manifest_streams(world: World, count: int) -> None:
    """It is checked to its end, whatever its length, in the same memory."""
    path = Path(manifest(world, range(count)))
    with path.open("a") as file:
        file.write("- {}\n")
    with subprocess.Popen(
        [*COMMAND, "sync", str(path)], env=world.environ, stderr=subprocess.PIPE, text=True
    ) as process:
        peak = peak_memory(process)
        _, said = process.communicate()
    assert (process.returncode, world.endpoint.requests) == (78, 0)
    assert f"line {count + 3}: `user_id` is missing" in said
    assert 10 < peak < 150
