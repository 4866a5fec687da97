"""That every command ends by its deadline."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from support.cli import COMMAND, World
from support.drip import dripping

PATIENCE = 30  # seconds that a real wait may take before the test has failed
SLACK = 2.0  # seconds beyond a deadline; on a quiet machine it is less than 0.1
DEADLINE = 1.0  # seconds
# What a command that needs all of them imports, which takes most of its start.
IMPORTS = "import vault_plugin.cli, vault_plugin.vault.store, vault_plugin.endpoint.client"
# Start-ups of the moment that a command may take: its own, and half of one for what differs from the measured ones. On 2
# cores with a load of 10 to 19, it took 0.2 to 1.0 of one.
STARTS = 1.5


def earliest(took: float) -> float:
    """How many seconds before its JWT expires Vault may delete a token whose requests took so long: see vault/lifetime.py."""
    return 3 + (took if took > 1 else 0)


class Ended(NamedTuple):
    """How a command ended, and how long it took (seconds)."""

    code: int
    err: str
    took: float


def assert_every_command_ends(world: World, side: str, where: str) -> None:
    """All of them do while the server of that side drips there, and a `get` after them finds no lock held."""
    manifest = world.home / "manifest.csv"
    manifest.write_text("user_id,company_name\n1,Acme\n2,Acme\n")
    # What each of them reads, and how many seconds after its deadline it may end.
    commands = {
        ("get",): ("", 1),
        ("exec", "--", "true"): ("", 1),
        ("helper", "git", "get"): ("protocol=https\nhost=api.example\n\n", 1),
        ("terraform",): (json.dumps({"user_id": "26", "company_name": "Acme"}), 1),
        # Without an end of its own it waits for the end of the outage. Identities in progress get some time to finish.
        ("sync", str(manifest), "--deadline", f"{DEADLINE}"): ("", 5),
    }
    with dripping(where) as url, ThreadPoolExecutor(len(commands)) as pool:
        environ = world.environ | {
            "KLEARSTACK_DEADLINE": f"{DEADLINE}",
            "KLEARSTACK_TIMEOUT": "0.7",
            side: url,
        }
        environ |= {"KLEARSTACK_HELPER_HOSTS": "api.example"}

        def run(command: list[str], query: str = "") -> Ended:
            began = time.monotonic()
            done = subprocess.run(
                command,
                env=environ,
                input=query,
                capture_output=True,
                text=True,
                check=False,
                timeout=2 * PATIENCE,
            )
            return Ended(done.returncode, done.stderr, time.monotonic() - began)

        def start_up() -> float:
            """How long this machine takes at the moment to start as many processes at once as there are commands."""
            command = [sys.executable, "-c", IMPORTS]
            return max(one.took for one in pool.map(run, [command] * len(commands)))

        limit = STARTS * start_up()
        # All at once: those for one identity also wait for each other's lock.
        ended = list(
            pool.map(run, ([*COMMAND, *one] for one in commands), (query for query, _ in commands.values()))
        )
        beyond = [one.took - DEADLINE - more for one, (_, more) in zip(ended, commands.values(), strict=True)]
        if max(beyond) >= limit:  # the machine may have become slower meanwhile
            limit = max(limit, STARTS * start_up())
        assert max(beyond) < limit
    # Who waits for the lock while another process drips says 75.
    assert {one.code for one in ended} <= {69, 75, 5}
    assert not any("Traceback" in one.err for one in ended)
    assert world.get()["source"] == "endpoint"
