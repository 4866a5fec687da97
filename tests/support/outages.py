"""A `sync` of many identities during which the endpoint or Vault begins to fail, and what is promised then."""

import threading
import time

from support.cli import World
from support.waiting import until
from vault_plugin.demo.simulator import Simulator


def manifest(world: World, count: int) -> str:
    path = world.home / "manifest.csv"
    path.write_text("user_id\n" + "".join(f"{user}\n" for user in range(count)))
    return str(path)


class Syncing:
    """A sync in the background; `wait` gives its exit code and streams."""

    def __init__(self, world: World, count: int, *options: str, **environ: str | None) -> None:
        self._thread = threading.Thread(target=self._run, args=(world, count, options, environ))
        self._thread.start()

    def _run(
        self, world: World, count: int, options: tuple[str, ...], environ: dict[str, str | None]
    ) -> None:
        self.done = world.run("sync", manifest(world, count), *options, **environ)

    def wait(self) -> tuple[int, str, str]:
        self._thread.join(120)
        return self.done.returncode, self.done.stdout, self.done.stderr


def _reached(endpoint: Simulator, mints: int) -> None:
    until(lambda: endpoint.mints >= mints)


def limited_token(world: World, *, policy: str | None = None) -> str:
    rule = policy or f'path "{world.mount}/*" {{ capabilities = ["create", "read", "update"] }}'
    world.vault.admin.sys.create_or_update_policy(world.mount, rule)
    made = world.vault.admin.auth.token.create(policies=[world.mount])
    return str(made["auth"]["client_token"])


def _stored(world: World, count: int) -> int:
    """How many identities have an access token in Vault."""
    return sum(
        world.vault.read(world.mount, f"klearstack/Acme/{user}/access") is not None for user in range(count)
    )


def assert_nobody_is_left_out(world: World, fault: str, count: int) -> None:
    """All are minted although the endpoint fails for 6 seconds, in which it is hardly asked."""
    world.endpoint.latency = 0.02
    running = Syncing(world, count)
    _reached(world.endpoint, count * 3 // 10)
    world.endpoint.fault = fault
    time.sleep(6)
    requests = world.endpoint.requests - world.endpoint.mints
    world.endpoint.fault = ""
    assert running.wait() == (0, f"{count} identities: {count} minted\n", "")
    assert world.endpoint.mints == count
    # What was in flight with its tries, and a few probes.
    assert 0 < requests <= 16 * 4 + 5 * 4


def assert_a_revoked_token_wastes_little(world: World, count: int) -> None:
    """No more is minted in vain than is in flight when the Vault token is revoked."""
    token = limited_token(world)
    world.endpoint.latency = 0.05
    running = Syncing(world, count, "--stop-after", "2", VAULT_TOKEN=token)
    _reached(world.endpoint, count // 5)
    world.vault.admin.auth.token.revoke(token)
    code, _, err = running.wait()
    assert code == 5
    assert world.endpoint.mints - _stored(world, count) <= 16
    (line,) = err.splitlines()
    assert "Vault does not know the Vault token" in line


def assert_a_read_only_policy_wastes_little(world: World, count: int) -> None:
    """The same when the policy becomes one that may only read."""
    token = limited_token(world)
    world.endpoint.latency = 0.05
    running = Syncing(world, count, VAULT_TOKEN=token)
    _reached(world.endpoint, count // 5)
    limited_token(world, policy=f'path "{world.mount}/*" {{ capabilities = ["read"] }}')
    code, _, err = running.wait()
    assert code == 5
    assert world.endpoint.mints - _stored(world, count) <= 16
    assert "The policy of the Vault token lacks a capability" in err


def assert_a_mount_that_vanishes_wastes_little(world: World, count: int) -> None:
    """The same when the KV engine is unmounted."""
    world.endpoint.latency = 0.05
    running = Syncing(world, count, "--stop-after", "2")
    _reached(world.endpoint, count // 5)
    world.vault.admin.sys.disable_secrets_engine(world.mount)
    before = world.endpoint.mints
    code, _, err = running.wait()
    assert code == 5
    assert world.endpoint.mints - before <= 16
    (line,) = err.splitlines()
    assert f"No KV secrets engine is mounted at {world.mount}" in line
