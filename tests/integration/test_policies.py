"""Every command under exactly the policy that `policy` prints for its role, and what is refused with a capability less."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from support.cli import World, run, start
from support.waiting import until

from vault_plugin import cli
from vault_plugin.app import connect
from vault_plugin.errors import StoreRefusedError
from vault_plugin.settings import Settings
from vault_plugin.vault.policy import hcl, rules

MANIFEST = "user_id,company_name,file\n26,Acme,\n27,Acme,{file}\n"
QUERY = json.dumps({"user_id": "26", "company_name": "Acme"})
# The commands of each role, with their standard input. What a role's first command stores, the next ones find.
COMMANDS: dict[str, list[tuple[tuple[str, ...], str]]] = {
    "reader": [
        (("get",), ""),
        (("get", "--token", "both", "--format", "json"), ""),
        (("exec", "--", "true"), ""),
        (("helper", "bazel", "get"), '{"uri": "https://api.example/x"}'),
        (("terraform",), QUERY),
        (("doctor",), ""),
    ],
    "syncer": [
        (("get",), ""),
        (("get", "--renew"), ""),
        (("sync", "--check", "manifest.csv"), ""),
        (("sync", "manifest.csv"), ""),
        (("doctor", "--write-test"), ""),
        (("helper", "git", "get"), "protocol=https\nhost=api.example\n\n"),
    ],
    "operator": [
        (("status",), ""),
        (("delete", "--yes"), ""),
        (("delete", "--yes", "--user-id", "27"), ""),  # of whom nothing is stored
    ],
}
NEVER = {"watch", "policy", "demo", "simulate"}  # `watch` has a test of its own; the others ask no Vault
HOSTS = {"KLEARSTACK_HELPER_HOSTS": "api.example"}


def version(world: World) -> int:
    return 2 if world.vault.is_v2(world.mount) else 1


def under(world: World, role: str) -> dict[str, str]:
    """The environment with a token that may do what the role's policy says, and nothing else."""
    printed = run("policy", role, "--kv-version", str(version(world)), environ=world.environ)
    assert (printed.returncode, printed.stderr) == (0, "")
    return world.environ | HOSTS | {"VAULT_TOKEN": world.vault.policy_token(printed.stdout)}


@pytest.mark.parametrize("role", COMMANDS)
def test_every_command_of_a_role_works_under_its_policy(
    world: World, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.home)
    (world.home / "manifest.csv").write_text("user_id,company_name\n26,Acme\n27,Acme\n")
    if role != "syncer":
        world.store()
    environ = under(world, role)
    # What a command asks for does not depend on the command: on KV v1, one of each role stands for all.
    commands = COMMANDS[role] if version(world) == 2 or role == "operator" else COMMANDS[role][:1]
    for arguments, given in commands:
        if arguments[0] in cli.COMMANDS:
            done = run(*arguments, environ=environ, stdin=given)
            assert (done.returncode, done.stderr) == (0, ""), arguments
    assert world.endpoint.mints == (3 if role == "syncer" and version(world) == 2 else 1)


def test_every_command_that_asks_vault_belongs_to_a_role() -> None:
    tried = {arguments[0] for commands in COMMANDS.values() for arguments, _ in commands}
    hidden = {"supervise"}
    assert cli.COMMANDS.keys() - hidden - NEVER <= tried


def test_watch_works_under_the_policy_of_a_syncer(kv2: World) -> None:
    manifest, file = kv2.home / "manifest.csv", kv2.home / "token"
    manifest.write_text(MANIFEST.format(file=file))
    with start("watch", str(manifest), environ=under(kv2, "syncer"), stderr=subprocess.PIPE) as process:
        try:
            until(file.exists)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said.count("\n")) == (0, 1)


def less(role: str, kv: int, mount: str) -> Iterator[tuple[str, str]]:
    """The role's policy without each of its capabilities in turn, and what is missing."""
    whole = hcl(role, kv, mount, "klearstack")
    for rule in rules(role, kv):
        place = rule.place(mount, "klearstack/*")
        for capability in rule.capabilities:
            kept = ", ".join(f'"{one}"' for one in rule.capabilities if one != capability)
            changed, count = re.subn(
                rf'(path "{re.escape(place)}" *{{ capabilities = )\[.*\]', rf"\1[{kept}]", whole
            )
            assert count == 1
            yield changed, f"{rule.area} {capability}"


def reads(world: World, settings: Settings) -> None:
    with connect(settings) as broker:
        assert broker.get(settings.identity()).source == "vault"


def mints(world: World, settings: Settings) -> None:
    """Mint for an identity that has no token yet, and again when tokens have another lifetime."""
    with connect(settings) as broker:
        for earlier, life in ((30, 900), (0, 600)):
            world.endpoint.ahead, world.endpoint.access_ttl = -earlier, life
            broker.get(settings.identity(), renew=True)


@pytest.mark.parametrize(("role", "works"), [("reader", reads), ("syncer", mints)])
def test_one_capability_less_is_refused(
    world: World, role: str, works: Callable[[World, Settings], None]
) -> None:
    world.store()
    works(world, Settings.from_env(under(world, role)))
    accepted = []
    for number, (policy, missing) in enumerate(less(role, version(world), world.mount)):
        company = f"New {number}" if role == "syncer" else "Acme"
        limited = world.environ | {"VAULT_TOKEN": world.vault.policy_token(policy)}
        with suppress(StoreRefusedError):
            works(world, Settings.from_env(limited, company_name=company))
            accepted.append(missing)
    assert accepted == []


if "delete" in cli.COMMANDS:  # as soon as it exists

    def test_one_capability_less_than_an_operators_is_refused(world: World) -> None:
        for policy, missing in less("operator", version(world), world.mount):
            world.store()
            limited = world.environ | {"VAULT_TOKEN": world.vault.policy_token(policy)}
            done = [run(*arguments, environ=limited) for arguments, _ in COMMANDS["operator"]]
            assert any(one.returncode and "Vault denied" in one.stderr for one in done), f"without {missing}"
