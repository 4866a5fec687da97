"""What a warm token costs a play, as whole runs in turn, beside its peer: python tests/benchmarks/playbook.py

The peer is `community.hashi_vault.vault_kv2_get`, which reads the same secret: `pip install ansible .`.
What counts is the time over a play that only shows a static message; quote the ratios, not the milliseconds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vault_plugin.demo.embedded import openbao
from vault_plugin.demo.simulator import Simulator

ROOT = Path(__file__).parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HOSTS, FORKS, ROUNDS = 50, 5, 7


def _message(text: str) -> dict[str, object]:
    return {"ansible.builtin.debug": {"msg": text}}


OURS, PEER = "our lookup", "vault_kv2_get"
TASKS = {
    "static message": _message("static"),
    PEER: _message(
        "{{ lookup('community.hashi_vault.vault_kv2_get', 'klearstack/Acme/26/access').secret.expires_at }}"
    ),
    OURS: _message("{{ lookup('klearstack.vault.token').expires_at }}"),
    "our task": {"klearstack.vault.token": {}},
}


def main() -> None:
    """Print a table: each task's milliseconds per host (median), what of it is over the message, and the ratio."""
    with openbao() as vault, Simulator() as endpoint, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "ansible"),
            "ANSIBLE_STDOUT_CALLBACK": "minimal",
            "ANSIBLE_FORKS": str(FORKS),
            "VAULT_ADDR": vault.address,
            "VAULT_TOKEN": vault.root_token,
            "KLEARSTACK_URL": endpoint.url,
            "KLEARSTACK_USER_ID": "26",
            "KLEARSTACK_COMPANY_NAME": "Acme",
            "KLEARSTACK_LOCK_DIR": f"{name}/locks",
        }
        hosts = folder / "hosts"
        hosts.write_text("\n".join(f"host{number} ansible_connection=local" for number in range(HOSTS)))
        for task, what in TASKS.items():
            play = [{"hosts": "all", "gather_facts": False, "tasks": [what]}]
            (folder / f"{task}.yml").write_text(json.dumps(play))

        def run(task: str) -> float:
            started = time.perf_counter()
            command = [str(PLAYBOOK), "-i", str(hosts), str(folder / f"{task}.yml")]
            done = subprocess.run(
                command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode:
                sys.exit(done.stdout.decode())
            return (time.perf_counter() - started) * 1000 / HOSTS

        run("our task")  # mints
        taken: dict[str, list[float]] = {task: [] for task in TASKS}
        for _ in range(ROUNDS):
            for task in TASKS:
                taken[task].append(run(task))
        assert endpoint.mints == 1
    # By rounds: what else the machine does at that moment then counts on both sides.
    over = {
        task: statistics.median(one - base for one, base in zip(times, taken["static message"], strict=True))
        for task, times in taken.items()
    }
    print(f"{HOSTS} hosts, {FORKS} forks: ms per host")  # noqa: T201
    print(f"{'':16} {'median':>8} {'over':>8} {'ratio':>7}")  # noqa: T201
    for task, times in taken.items():
        print(f"{task:16} {statistics.median(times):8.1f} {over[task]:8.1f} {over[task] / over[PEER]:7.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
