"""That every command ends by its deadline."""

import json
import subprocess
import time

from support.cli import COMMAND, World
from support.drip import dripping

PATIENCE = 30  # seconds that a real wait may take before the test has failed
SLACK = 2.0  # seconds beyond a deadline; on a quiet machine it is less than 0.1


def assert_every_command_ends(world: World, side: str, where: str) -> None:
    """All of them do while the server of that side drips there, and a `get` after them finds no lock held."""
    manifest = world.home / "manifest.csv"
    manifest.write_text("user_id,company_name\n1,Acme\n2,Acme\n")
    commands = {
        ("get",): "",
        ("exec", "--", "true"): "",
        ("helper", "git", "get"): "protocol=https\nhost=api.example\n\n",
        ("terraform",): json.dumps({"user_id": "26", "company_name": "Acme"}),
        ("sync", str(manifest), "--deadline", "1"): "",  # or it waits for the end of the outage
    }
    with dripping(where) as url:
        environ = world.environ | {"KLEARSTACK_DEADLINE": "1", "KLEARSTACK_TIMEOUT": "0.7", side: url}
        environ |= {"KLEARSTACK_HELPER_HOSTS": "api.example"}
        start_up = _seconds_to_start(len(commands), environ)
        started = time.monotonic()
        children = [
            subprocess.Popen([*COMMAND, *one], env=environ, stdin=-1, stdout=-1, stderr=-1, text=True)
            for one in commands
        ]
        for child, query in zip(children, commands.values(), strict=True):
            assert child.stdin is not None
            child.stdin.write(query)  # to all of them at once: the wait for a query ends by the deadline, too
            child.stdin.close()
            child.stdin = None
        said = [child.communicate(timeout=2 * PATIENCE) for child in children]
        took = time.monotonic() - started
        if took >= 1 + 5 + SLACK + 5 * start_up:  # the machine may have become slower meanwhile
            start_up = max(start_up, _seconds_to_start(len(commands), environ))
        assert took < 1 + 5 + SLACK + 5 * start_up
    # Who waits for the lock while another process drips says 75.
    assert {child.returncode for child in children} <= {69, 75, 5}
    assert not any("Traceback" in err for _, err in said)
    assert world.get()["source"] == "endpoint"


def _seconds_to_start(count: int, environ: dict[str, str]) -> float:
    """What this machine takes at the moment to start so many of our processes at once."""
    started = time.monotonic()
    children = [subprocess.Popen([*COMMAND, "--version"], env=environ, stdout=-1) for _ in range(count)]
    for child in children:
        child.communicate()
    return time.monotonic() - started
