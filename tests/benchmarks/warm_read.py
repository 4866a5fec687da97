"""What a warm read costs, as whole processes in turn, beside its peers: python tests/benchmarks/warm_read.py

Peers: the same secret read by `bao kv get` and by the shortest script over hvac, and a bare interpreter. Quote the
ratios: the milliseconds are this machine's.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from vault_plugin.demo.embedded import binary, openbao
from vault_plugin.demo.simulator import Simulator

ROUNDS = 15
HVAC = """
import hvac
client = hvac.Client()
secret = client.secrets.kv.v2.read_secret_version("klearstack/Acme/26/access", raise_on_deleted_version=True)
print(secret["data"]["data"]["access_token"])
"""


def main() -> None:
    """Print a table: milliseconds (median, least) and the median's ratio to ours."""
    with openbao() as vault, Simulator() as endpoint, tempfile.TemporaryDirectory() as home:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "VAULT_ADDR": vault.address,
            "VAULT_TOKEN": vault.root_token,
            "KLEARSTACK_URL": endpoint.url,
            "KLEARSTACK_USER_ID": "26",
            "KLEARSTACK_COMPANY_NAME": "Acme",
            "KLEARSTACK_LOCK_DIR": f"{home}/locks",
        }
        commands = {
            "klearstack-vault get": [sys.executable, "-m", "vault_plugin", "get"],
            "hvac script": [sys.executable, "-c", HVAC],
            "bao kv get": [
                str(binary()),
                "kv",
                "get",
                "-field=access_token",
                "secret/klearstack/Acme/26/access",
            ],
            "bare interpreter": [sys.executable, "-c", "pass"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):  # the first round mints, and warms the caches of the machine
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
                times[name].append((time.perf_counter() - started) * 1000)
    ours = statistics.median(times["klearstack-vault get"][1:])
    print(f"{'':22} {'median':>8} {'least':>8} {'ratio':>7}")  # noqa: T201
    for name, all_taken in times.items():
        taken = all_taken[1:]
        median = statistics.median(taken)
        print(f"{name:22} {median:8.1f} {min(taken):8.1f} {median / ours:7.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
