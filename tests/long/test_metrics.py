"""What `watch` exposes, by Prometheus' own judgement. `.ci/full` installs promtool."""

import subprocess
from urllib.request import urlopen

from vault_plugin.bulk.metrics import served
from vault_plugin.bulk.stats import Expiry, Stats
from vault_plugin.manifest.entries import Entry
from vault_plugin.tokens.identity import Identity


def test_promtool_finds_nothing_to_improve() -> None:
    entries = (
        Entry(2, Identity("user-26", "Acme"), None, "billing job"),
        Entry(7, Identity("user-27", "Acme"), "/run/user-27"),
    )
    stats = Stats(
        mints=3, waits=2, expiries={one.identity: Expiry(one, 1_790_000_000.0, 5.0) for one in entries}
    )
    stats.failures.update(vault_busy=4, endpoint_refused=1)
    with (
        served(stats, "127.0.0.1", 0) as port,
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer,
    ):
        exposed = answer.read()
    assert b'{name="billing job"}' in exposed
    done = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
