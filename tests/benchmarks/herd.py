"""What 40 callers cost while the endpoint fails, as whole processes: python tests/benchmarks/herd.py

Beside one caller, and beside 40 starts of `--version` at once. The goal: 1.5 times the time of the one plus that of the
starts, and twice its requests. Quote the ratios: the seconds are this machine's.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator

CALLERS = 40
COMMAND = [sys.executable, "-m", "vault_plugin"]
QUERY = b'{"user_id": "26", "company_name": "Acme"}'


def together(arguments: Sequence[str], environ: Mapping[str, str], callers: int) -> tuple[float, list[str]]:
    """Seconds until the last one has ended, and what each one said."""
    began = time.perf_counter()
    started = [
        subprocess.Popen(
            [*COMMAND, *arguments],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(callers)
    ]
    for one in started:
        assert one.stdin is not None
        one.stdin.write(QUERY)
        one.stdin.close()
        one.stdin = None
    said = [one.communicate()[1].decode() for one in started]
    return time.perf_counter() - began, said


def main() -> None:
    """Print a table: a line for each way to fail."""
    head = (
        f"{'':8} {'one':>7} {'starts':>7} {'all':>7} {'of goal':>8} {'requests':>9} {'one':>4} {'causes':>7}"
    )
    print(head)  # noqa: T201
    for fault in ("503", "reset", "hang"):
        with openbao() as vault, Simulator() as endpoint, tempfile.TemporaryDirectory() as home:
            endpoint.fault = fault
            environ = {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "VAULT_ADDR": vault.address,
                "VAULT_TOKEN": vault.root_token,
                "KLEARSTACK_URL": endpoint.url,
                "KLEARSTACK_LOCK_DIR": f"{home}/locks",
            }
            together(["--version"], environ, CALLERS)  # warms the caches of the machine
            starts, _ = together(["--version"], environ, CALLERS)
            alone, _ = together(["terraform"], environ, 1)
            asked = endpoint.requests
            took, said = together(["terraform"], environ, CALLERS)
            requests, goal = endpoint.requests - asked, 1.5 * alone + starts
            print(  # noqa: T201
                f"{fault:8} {alone:7.2f} {starts:7.2f} {took:7.2f} {took / goal:8.2f} {requests:9} {asked:4}"
                f" {len(set(said)):7}"
            )
            for text in sorted(set(said)):
                print("  ", said.count(text), "x", text.rstrip())  # noqa: T201


if __name__ == "__main__":
    main()
