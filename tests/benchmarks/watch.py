"""Whether `watch` keeps its promise, at full size: python tests/benchmarks/watch.py [IDENTITIES LIFE SECONDS]

200 identities with lives of 60 s for 5 minutes: Vault, looked at every second, lacks no good token at any time. Then the
endpoint is gone for a minute, and comes back; then SIGTERM.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from sampling import Sampler  # noqa: E402
from vaults import Vault  # noqa: E402

from vault_plugin.embedded import free_port, openbao  # noqa: E402
from vault_plugin.simulator import Simulator  # noqa: E402

OUTAGE = 60.0  # seconds


def metrics(port: int) -> dict[str, float]:
    """What Prometheus would see: each name's sum over its labels, and the earliest expiry."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = re.findall(r"(?m)^(klearstack\w+)(?:\{.*\})? (\S+)$", answer.read().decode())
    ends = [float(value) for name, value in lines if name.endswith("_expiry")]
    found = {"earliest expiry": min(ends), "identities": float(len(ends))}
    for name, value in lines:
        if name.endswith("_total"):
            found[name] = found.get(name, 0) + float(value)
    return found


def main() -> None:
    """Print what was seen; exit with 1 if a token was lacking before the outage, or after the recovery."""
    identities, life, seconds = (int(word) for word in (sys.argv[1:] or ["200", "60", "300"]))
    with (
        openbao() as server,
        tempfile.TemporaryDirectory() as home,
        Simulator(access_ttl=life) as endpoint,
    ):
        vault, port = Vault(server.address, server.root_token), free_port()
        manifest = Path(home, "manifest.csv")
        users = range(identities)
        manifest.write_text("user_id,company_name\n" + "".join(f"{user},Acme\n" for user in users))
        watch = subprocess.Popen(
            [sys.executable, "-m", "vault_plugin", "watch", str(manifest), "--metrics", str(port)],
            env={
                "PATH": os.environ["PATH"],
                "HOME": home,
                "VAULT_ADDR": server.address,
                "VAULT_TOKEN": server.root_token,
                "KLEARSTACK_URL": endpoint.url,
                "KLEARSTACK_LOCK_DIR": f"{home}/locks",
            },
        )
        while endpoint.mints < identities:
            time.sleep(0.1)
        time.sleep(1)
        with Sampler(vault, "secret", users) as calm:
            time.sleep(seconds)
        print(f"calm: {len(calm.samples)} looks, {calm.lacking} found no good token; {metrics(port)}")  # noqa: T201
        address = int(endpoint.url.rpartition(":")[2])
        endpoint.__exit__()
        time.sleep(OUTAGE)
        down = metrics(port)
        with Simulator(port=address, access_ttl=life) as again, Sampler(vault, "secret", users) as after:
            while after.samples[-1:] == [] or after.samples[-1].lacking:
                time.sleep(0.1)
            recovered = after.samples[-1].at - after.samples[0].at
            peak = again.mints / max(1.0, recovered)
            time.sleep(life)
        print(f"down for {OUTAGE:.0f} s: {down}")  # noqa: T201
        print(f"recovered in {recovered:.0f} s, {peak:.0f} mints a second; {metrics(port)}")  # noqa: T201
        late = [
            sample
            for sample in after.samples
            if sample.at > after.samples[0].at + recovered and sample.lacking
        ]
        watch.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = watch.wait()
        took = time.monotonic() - started
        print(f"ended {took:.1f} s after SIGTERM with {code}; {len(late)} lacking later")  # noqa: T201
        vault.close()
        sys.exit(bool(calm.lacking or late or code))


if __name__ == "__main__":
    main()
