"""What a bulk sync costs beside its peer, and whether all lands: python tests/benchmarks/sync.py [IDENTITIES]

For 1,000 and for IDENTITIES (10,000), each against an OpenBao of its own: a cold run, checked token by token, and a
second one. The peer is a script over hvac and requests with as many threads, which mints and writes the same (without
looking first, locking, or checking what it wrote), and for the second run reads the same; once before and once after
ours, for 1,000. Quote the ratios: the seconds are this machine's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from support.vault import Vault  # noqa: E402

from vault_plugin.demo.embedded import openbao  # noqa: E402
from vault_plugin.timing.clock import parse_rfc3339  # noqa: E402

PEER = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import hvac, requests
client, local = hvac.Client(), threading.local()
kv, url = client.secrets.kv.v2, sys.argv[1] + "/access/klearstack/getaccesstokenfromuserid"
def mint(user):
    if not hasattr(local, "session"):
        local.session = requests.Session()
    pair = local.session.post(url, data={"user_id": user, "company_name": "Peer"}).json()
    for kind in ("refresh", "access"):
        path = f"klearstack/Peer/{user}/{kind}"
        kv.update_metadata(path, max_versions=1, delete_version_after="800s")
        kv.create_or_update_secret(path, {"token": pair[f"{kind}_token"]})
def read(user):
    kv.read_secret_version(f"klearstack/Peer/{user}/access", raise_on_deleted_version=True)
with ThreadPoolExecutor(16) as pool:
    list(pool.map(mint if sys.argv[3] == "mint" else read, range(int(sys.argv[2]))))
"""


def timed(command: list[str], environ: dict[str, str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of a whole process, which must succeed."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[:4]} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def lost_or_late(vault: Vault, identities: int) -> int:
    """How many tokens are not in Vault, or would be there longer than their JWT lives."""
    wrong = 0
    for user in range(identities):
        found = vault.admin.secrets.kv.v2.read_secret_version(
            f"klearstack/Acme/{user}/access", raise_on_deleted_version=False
        )["data"]
        deletion = parse_rfc3339(found["metadata"]["deletion_time"]) or float("inf")
        wrong += not found["data"] or deletion > (parse_rfc3339(found["data"]["expires_at"]) or 0)
    return wrong


def measure(identities: int, *, peer: bool) -> None:
    """Print a line for each run."""
    with (
        openbao() as server,
        tempfile.TemporaryDirectory() as home,
        # Long lives: checking 10,000 tokens takes a while. A process of its own: it is no part of what is measured.
        subprocess.Popen(
            [sys.executable, "-m", "vault_plugin", "simulate", "--port", "0", "--access-ttl", "3600"],
            stdout=subprocess.PIPE,
            text=True,
        ) as endpoint,
    ):
        assert endpoint.stdout is not None
        url = endpoint.stdout.readline().strip()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "VAULT_ADDR": server.address,
            "VAULT_TOKEN": server.root_token,
            "KLEARSTACK_URL": url,
            "KLEARSTACK_LOCK_DIR": f"{home}/locks",
        }
        manifest = Path(home, "manifest.csv")
        manifest.write_text(
            "user_id,company_name\n" + "".join(f"{user},Acme\n" for user in range(identities))
        )
        ours = [sys.executable, "-m", "vault_plugin", "sync", str(manifest)]
        for what in ("mint", "read"):
            theirs = [sys.executable, "-c", PEER, url, str(identities), what]
            before = timed(theirs, environ) if peer else None
            wall, cpu, peak = timed(ours, environ)
            ratio = ""
            if before:
                after = timed(theirs, environ)
                ratio = f"  {2 * wall / (before[0] + after[0]):.2f}x the peer, {2 * cpu / (before[1] + after[1]):.2f}x its CPU"
            print(f"{identities:6} {what}: {wall:7.2f} s {cpu:7.2f} CPU s {peak:5.0f} MB{ratio}")  # noqa: T201
        vault = Vault(server.address, server.root_token)
        with urllib.request.urlopen(f"{url}/simulator/stats") as answer:
            mints = json.load(answer)["mints"]
        print(f"{identities:6} lost or late: {lost_or_late(vault, identities)}; {mints} mints in all")  # noqa: T201
        vault.close()
        endpoint.terminate()


if __name__ == "__main__":
    measure(1000, peer=True)
    measure(int(sys.argv[1]) if sys.argv[1:] else 10_000, peer=False)
