"""Whether `watch` keeps its promise: python tests/benchmarks/watch.py [IDENTITIES LIFE SECONDS OUTAGE]

200 identities with lives of 60 s for 300 s: Vault, looked at every second, lacks no good token at any time. Then the
endpoint is gone for 60 s and comes back, then Vault; then SIGTERM.
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

from support.sampling import Sampler  # noqa: E402
from support.vault import Vault  # noqa: E402

from vault_plugin.demo.embedded import free_port, openbao  # noqa: E402
from vault_plugin.demo.simulator import Simulator  # noqa: E402


def metrics(port: int) -> dict[str, float]:
    """What Prometheus would see: each name's sum over its labels, and the earliest expiry."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = re.findall(r"(?m)^(klearstack\w+)(?:\{.*\})? (\S+)$", answer.read().decode())
    ends = [float(value) for name, value in lines if name.endswith("_expiry_timestamp_seconds")]
    found = {"earliest expiry": min(ends) - time.time(), "identities": float(len(ends))}
    for name, value in lines:
        if name.endswith("_total"):
            found[name] = found.get(name, 0) + float(value)
    return found


def recovery(endpoint: Simulator, vault: Vault, users: range, life: float) -> int:
    """Print how all tokens come to be good again, and how many are lacking in the life after that."""
    begun, busiest, seen = time.monotonic(), 0, endpoint.requests
    with Sampler(vault, "secret", users) as sampler:
        while not sampler.samples or sampler.samples[-1].lacking:
            time.sleep(1)
            busiest, seen = max(busiest, endpoint.requests - seen), endpoint.requests
        took, looks = time.monotonic() - begun, len(sampler.samples)
        time.sleep(life)
    lacking = sum(sample.lacking for sample in sampler.samples[looks:])
    print(f"  all good after {took:.0f} s, at most {busiest} requests in a second; {lacking} lacking later")  # noqa: T201
    return lacking


def main() -> None:
    """Print what was seen; exit with 1 if a token was lacking before the outages, or after a recovery."""
    words = sys.argv[1:] or ["200", "60", "300", "60"]
    identities, life, seconds, outage = (int(word) for word in words)
    users = range(identities)
    with openbao() as server, tempfile.TemporaryDirectory() as home:
        endpoint = Simulator(access_ttl=life).__enter__()
        vault, port = Vault(server.address, server.root_token), free_port()
        manifest = Path(home, "manifest.csv")
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
        time.sleep(outage)
        print(f"endpoint gone for {outage} s: {metrics(port)}")  # noqa: T201
        endpoint = Simulator(port=address, access_ttl=life).__enter__()
        late = recovery(endpoint, vault, users, life)

        os.kill(server.pid, signal.SIGSTOP)  # it answers nobody, as behind a broken network
        asked = endpoint.requests
        time.sleep(outage)
        asked = endpoint.requests - asked
        os.kill(server.pid, signal.SIGCONT)
        print(f"Vault gone for {outage} s: {asked} requests to the endpoint; {metrics(port)}")  # noqa: T201
        late += recovery(endpoint, vault, users, life)

        watch.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = watch.wait()
        print(f"ended {time.monotonic() - started:.1f} s after SIGTERM with {code}")  # noqa: T201
        vault.close()
        endpoint.__exit__()
        sys.exit(bool(calm.lacking or late or code))


if __name__ == "__main__":
    main()
