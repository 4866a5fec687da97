"""What is stored in a real Vault: it is listed, looked at and deleted, and what is not ours is left alone."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from support.bulk import manifest, sync
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.leaks import leaked
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.broker.inventory import Inventory
from vault_plugin.bulk.deletion import Deletion, planned, pruned
from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.stock import listed, looked, of_identities
from vault_plugin.bulk.targets import Targets, connect_all
from vault_plugin.errors import BusyError, StoreRefusedError
from vault_plugin.manifest.model import Manifest
from vault_plugin.manifest.shards import Shard
from vault_plugin.manifest.targets import KEYS
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.vault.record import MANAGED_BY

ACME = Identity("26", "Acme")
PLACE = Place.of(ACME)
HOSTILE = [
    Identity("a/b", "../x"),
    Identity("é@x", "{{a}}"),
    Identity("x" * 300, "Y" * 300),
    Identity("+", "*"),
]


@contextmanager
def vault(world: World, name: str = "", **environ: str) -> Iterator[Targets]:
    """The Vault of that environment, for the manifest of that name."""
    gather = partial(Settings.for_many, world.environ | environ)
    with connect_all([gather], name) as targets:
        yield targets


def only(targets: Targets) -> Inventory:
    (found,) = targets.inventories
    return found


def all_ours(targets: Targets) -> list[Holding]:
    """All that `status` shows below the prefix."""
    parallel = Parallel(targets, concurrency=4, deadline=Deadline(20))
    return [one for found in looked(listed(targets, parallel), parallel) for one in found.ours]


def delete_all(targets: Targets) -> Deletion:
    """All that `delete --all` deletes."""
    parallel, run = Parallel(targets, concurrency=4, deadline=Deadline(20)), Deletion()
    run.run(planned(looked(listed(targets, parallel), parallel, thorough=True), targets), parallel)
    return run


def secrets(world: World, folder: str = "klearstack") -> set[str]:
    """The paths of all secrets below that folder, whoever wrote them, as Vault lists them."""
    where = f"{world.mount}/metadata" if world.vault.is_v2(world.mount) else world.mount
    answer = world.vault.admin.list(f"{where}/{folder}")
    found = set()
    for name in answer["data"]["keys"] if answer else ():
        found |= secrets(world, f"{folder}/{name[:-1]}") if name.endswith("/") else {f"{folder}/{name}"}
    return found


def metadata_of(world: World, path: str) -> dict[str, str]:
    found: dict[str, str] = world.vault.metadata(world.mount, path)["custom_metadata"] or {}
    return found


def test_each_token_is_found_with_what_is_known_of_it(world: World) -> None:
    with vault(world, "production") as targets:
        for identity in (ACME, *HOSTILE):
            targets.ensure(identity)
        found = all_ours(targets)
    assert {(one.identity, one.kind) for one in found} == {(i, k) for i in (ACME, *HOSTILE) for k in Kind}
    one = next(one for one in found if one.identity == ACME and one.kind is Kind.ACCESS)
    assert (one.manifest, one.issued_by) == ("production", world.endpoint.url)
    assert one.ref.mount == world.mount
    assert one.ref.version == (1 if world.vault.is_v2(world.mount) else None)
    assert one.life is not None
    assert one.minted_at is not None
    assert 890 < one.life <= 900
    assert 880 < (one.left or 0) <= one.life
    assert abs(one.minted_at - time.time()) < 20
    assert "eyJ" not in repr(found)


def test_what_is_not_ours_is_neither_shown_nor_deleted(world: World) -> None:
    world.store()
    record = world.vault.read(world.mount, "klearstack/Acme/26/access")
    assert record is not None
    others = {
        "klearstack/Acme/9/access": {"x": "y"},  # an unmanaged secret where a token belongs
        "klearstack/Acme/27/access": record,  # the token of another identity
        "klearstack/Acme/28/access": record | {"user_id": ""},
        "klearstack/Acme/29/refresh": record | {"user_id": "29"},  # not the kind of token that belongs there
        "klearstack/Acme/26/other": record,
        "klearstack/Acme/26/access/deeper": record,
        "klearstack/Acme/access": record,
        "klearstack/staging/Acme/26/access": record,  # the prefix klearstack/staging
        "klearstack/a b/26/access": record,  # no path of ours has a space
        "klearstack2/Acme/26/access": record,
        "Acme/26/access": record,
    }
    for path, data in others.items():
        world.vault.write(world.mount, path, data)
    with vault(world) as targets:
        assert {one.ref.path for one in all_ours(targets)} == {f"klearstack/Acme/26/{kind}" for kind in Kind}
        nine = only(targets).holdings(Place("Acme", "9"))
        assert [one.content for one in nine] == ["unmanaged", "nothing"]
        assert only(targets).delete(Place("Acme", "9")) == 0
        assert (delete_all(targets).paths, all_ours(targets)) == (2, [])
        assert delete_all(targets).paths == 0
    for path, data in others.items():
        assert world.vault.read(world.mount, path) == data
    assert secrets(world) == {path for path in others if path.startswith("klearstack/")}


def test_data_of_others_in_a_path_of_ours_is_left_alone(kv2: World) -> None:
    kv2.store()
    path = "klearstack/Acme/26/access"
    with vault(kv2) as targets:
        for data in (
            {"x": "y"},
            {"user_id": "26", "company_name": "Acme"},
            {"user_id": "27", "company_name": "Acme"},
        ):
            kv2.vault.write(kv2.mount, path, data)  # the custom_metadata stays
            assert MANAGED_BY.items() <= metadata_of(kv2, path).items()
            assert [one.content for one in only(targets).holdings(PLACE)] == ["unmanaged", "ours"]
            assert only(targets).delete(PLACE, "production") == 0
            assert kv2.vault.read(kv2.mount, path) == data
        assert delete_all(targets).paths == 1
    assert secrets(kv2) == {path}


def test_data_and_metadata_are_destroyed(kv2: World) -> None:
    kv2.store()
    with vault(kv2) as targets:
        assert only(targets).delete(PLACE) == 2
        assert [one.content for one in only(targets).holdings(PLACE, thorough=True)] == ["nothing"] * 2
    assert secrets(kv2) == set()
    kv2.vault.admin.secrets.kv.v2.undelete_secret_versions(
        "klearstack/Acme/26/access", [1], mount_point=kv2.mount
    )
    assert kv2.vault.read(kv2.mount, "klearstack/Acme/26/access") is None
    assert kv2.get()["source"] == "endpoint"  # as if there had never been a token


def soft_deleted(world: World, path: str) -> None:
    world.vault.admin.secrets.kv.v2.delete_latest_version_of_secret(path, mount_point=world.mount)


def destroyed(world: World, path: str) -> None:
    world.vault.destroy(world.mount, path, 1)


def emptied(world: World, path: str) -> None:
    world.vault.write(world.mount, path, {})


def without_a_version(world: World, path: str) -> None:
    kv = world.vault.admin.secrets.kv.v2
    kv.delete_metadata_and_all_versions(path, mount_point=world.mount)
    kv.update_metadata(path, mount_point=world.mount, custom_metadata=MANAGED_BY | {"manifest": "old"})


@pytest.mark.parametrize(
    ("spoil", "state"),
    [(soft_deleted, "expired"), (destroyed, None), (emptied, None), (without_a_version, "nothing")],
)
def test_a_path_whose_token_is_lost_is_still_ours(
    kv2: World, spoil: Callable[[World, str], object], state: str | None
) -> None:
    long = Identity("x" * 300, "Acme")
    with vault(kv2) as targets:
        for identity in (ACME, long):
            targets.ensure(identity)
            spoil(kv2, identity.path("klearstack", Kind.ACCESS))
        for identity in (ACME, long):
            access = only(targets).holdings(Place.of(identity))[0]
            # The path of a long name has its hash alone.
            assert access.identity == (ACME if identity is ACME else None)
            assert access.content == ("nothing" if state == "nothing" else "ours")
            assert access.left == (0 if state == "expired" else None)
        assert only(targets).holdings(PLACE, thorough=True)[0].content == "ours"
        assert delete_all(targets).paths == 4
    assert secrets(kv2) == set()


def test_metadata_of_others_without_a_version_is_left_alone(kv2: World) -> None:
    kv2.vault.set_life(kv2.mount, "klearstack/Acme/26/access", "10s")
    with vault(kv2) as targets:
        assert only(targets).delete(PLACE) == 0
    assert secrets(kv2) == {"klearstack/Acme/26/access"}


def test_a_rejected_token_is_missing(world: World) -> None:
    world.store()
    with connect(Settings.from_env(world.environ)) as broker:
        broker.reject(ACME, broker.get(ACME).access.token.value)
    with vault(world) as targets:
        access, refresh = only(targets).holdings(PLACE)
    assert (access.content, access.left) == ("ours", None)
    assert refresh.left is not None


def test_a_place_is_deleted_under_the_lock_of_its_identity(world: World) -> None:
    world.store()
    with (
        connect(Settings.from_env(world.environ)) as other,
        other._lock(ACME, Deadline(5)),  # as while it mints
        vault(world, KLEARSTACK_DEADLINE="0.4") as targets,
        pytest.raises(BusyError),
    ):
        only(targets).delete(PLACE)
    assert len(secrets(world)) == 2


POLICY = """
path "{mount}/data/klearstack/*"     {{ capabilities = ["read"] }}
path "{mount}/metadata/klearstack/*" {{ capabilities = [{metadata}] }}
"""


def test_the_documented_policies_are_enough_and_one_capability_less_is_not(kv2: World) -> None:
    kv2.store()

    def limited(*capabilities: str) -> str:
        metadata = ", ".join(f'"{one}"' for one in capabilities)
        return kv2.vault.policy_token(POLICY.format(mount=kv2.mount, metadata=metadata))

    with vault(kv2, VAULT_TOKEN=limited("list")) as targets:
        assert len(all_ours(targets)) == 2
        with pytest.raises(StoreRefusedError, match="denied the deletion"):
            only(targets).delete(PLACE)
    with (
        vault(kv2, VAULT_TOKEN=limited("read", "delete")) as targets,
        pytest.raises(StoreRefusedError, match="listing"),
    ):
        all_ours(targets)
    assert len(secrets(kv2)) == 2
    with vault(kv2, VAULT_TOKEN=limited("list", "read", "delete")) as targets:
        assert delete_all(targets).paths == 2


def test_the_mark_of_a_manifest_stays_until_another_one_mints(world: World) -> None:
    def mark(renewed_by: str | None) -> str:
        with vault(world, renewed_by or "") as targets:
            targets.ensure(ACME, renew=renewed_by is not None)
            assert len({one.manifest for one in all_ours(targets)}) == 1
            return all_ours(targets)[0].manifest

    assert [mark(name) for name in (None, "a", None, "", "b")] == ["", "a", "a", "a", "b"]
    with connect(Settings.from_env(world.environ)) as broker:
        broker.reject(ACME, broker.get(ACME).access.token.value)
        assert mark(None) == "b"
        broker.get(ACME, renew=True)
    assert mark(None) == "b"
    path = "klearstack/Acme/26/access"
    if world.vault.is_v2(world.mount):
        assert metadata_of(world, path)["manifest"] == "b"
        assert "manifest" not in (world.vault.read(world.mount, path) or {})
    else:
        assert (world.vault.read(world.mount, path) or {})["manifest"] == "b"


def test_a_listing_sends_a_request_for_each_folder_and_each_path(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy, vault(kv2, VAULT_ADDR=proxy.address) as targets:
        for number in range(8):
            targets.ensure(Identity(str(number), f"Company {number % 2}"))
        before = len(proxy.requests)
        assert len(all_ours(targets)) == 16
        sent = [line.split()[0] for line in proxy.requests[before:]]
        assert sorted(sent) == ["GET"] * 16 + ["LIST"] * 3
        before = len(proxy.requests)
        sites = list(of_identities(targets, iter([Identity("0", "Company 0")])))
        assert len(list(looked(sites, Parallel(targets, concurrency=4, deadline=Deadline(20))))) == 1
        assert len(proxy.requests) == before + 2


# The commands


def status(world: World, *arguments: str, **environ: str | None) -> list[dict[str, Any]]:
    done = world.run("status", "--format", "json", *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)["tokens"]
    return rows


def test_status_of_a_manifest_also_shows_what_is_missing(world: World) -> None:
    token = world.store()
    rows = status(world, manifest(world, range(26, 28)))
    assert [(row["user_id"], row["state"]) for row in rows] == [
        *(("27", "missing"), ("27", "missing")),
        *(("26", "valid"), ("26", "valid")),
    ]
    assert {row["vault"]["address"] for row in rows} == {world.vault.address}
    assert rows[0]["vault"]["path"] == "klearstack/Acme/27/access"
    assert token not in json.dumps(rows)
    assert "eyJ" not in json.dumps(rows)


def test_status_judges_what_is_stored(kv2: World) -> None:
    world, nobody = kv2, dict.fromkeys(("KLEARSTACK_USER_ID", "KLEARSTACK_COMPANY_NAME", "KLEARSTACK_URL"))
    assert world.run("status", "--exit-code", **nobody).returncode == 4
    world.store()
    done = world.run("status", "--exit-code", **nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == [
        *("COMPANY", "USER", "TOKEN", "REMAINING", "VERSION", "MINTED", "MANIFEST")
    ]
    assert done.stdout.endswith(f"\n\n2 tokens in {world.mount}/klearstack: 2 valid\n")
    assert world.run("status", "--exit-code", "--warn", "1h").returncode == 3
    path = manifest(world, range(26, 28))
    assert world.run("status", path, "--exit-code", "--warn", "1h").returncode == 4
    assert "eyJ" not in done.stdout
    done = world.run("status", "-vv", **nobody)
    assert leaked(world, world.endpoint, done.stdout + done.stderr) == []
    assert world.endpoint.mints == 1


def test_a_command_over_several_vaults_shows_each(kv2: World) -> None:
    head = "targets:\n- {path_prefix: one}\n- {path_prefix: two}\n"
    path = manifest(kv2, range(2), head)
    assert sync(kv2, path)[0] == 0
    done = kv2.run("status", path)
    assert done.stdout.count("COMPANY") == 2
    for prefix in ("one", "two"):
        assert f"4 tokens in {kv2.mount}/{prefix} at {kv2.vault.address}: 4 valid\n" in done.stdout
    assert kv2.run("delete", path, "--yes").stdout == "8 paths of 2 identities deleted\n"


def on_terminal(world: World, answer: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code, and what a terminal shows, of a command whose question gets this answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments], env=world.environ | environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
                if b"[y/N]" in part:
                    os.write(ours, answer.encode())
        except OSError:  # the other side is closed
            pass
        code = process.wait()
    os.close(ours)
    return code, shown.decode()


def test_a_terminal_gets_a_question_and_colours_and_elsewhere_delete_needs_yes(kv2: World) -> None:
    kv2.store()
    done = kv2.run("delete")
    assert (done.returncode, done.stdout) == (64, "")
    assert "--yes" in done.stderr
    done = kv2.run("delete", "--dry-run")
    assert done.stdout == (
        f"would delete {kv2.mount}/klearstack/Acme/26/access\n"
        f"would delete {kv2.mount}/klearstack/Acme/26/refresh\n"
        "2 paths of 1 identity would be deleted\n"
    )
    code, shown = on_terminal(kv2, "n\n", "delete")
    assert (code, "Interrupted" in shown) == (64, False)
    assert "klearstack-vault: Nothing was deleted." in shown
    assert f"Delete 2 paths of 1 identity in {kv2.mount}/klearstack at {kv2.vault.address}? [y/N]" in shown
    assert len(secrets(kv2)) == 2
    assert "\x1b[32m" in on_terminal(kv2, "", "status", TERM="xterm")[1]
    assert "\x1b" not in kv2.run("status").stdout


def test_what_is_pruned_has_the_mark_of_the_manifest_and_no_line_in_it(world: World) -> None:
    long = Identity("x" * 300, "Acme")
    with vault(world, "production") as targets:
        for identity in (ACME, Identity("27", "Acme"), Identity("28", "Other"), long):
            targets.ensure(identity)
    with vault(world, "staging") as targets:
        targets.ensure(Identity("29", "Acme"))
    with vault(world) as targets:
        targets.ensure(Identity("30", "Acme"))
        text = f"name: production\nidentities: [{{user_id: 26, company_name: Acme}}, {{user_id: {'x' * 300}, company_name: Acme}}]"
        now = Manifest(
            BytesIO(text.encode()),
            "yaml",
            Shard(2, 2),
            None,
            KEYS,
            lambda *_: Settings.for_many(world.environ),
        )
        parallel = Parallel(targets, concurrency=4, deadline=Deadline(20))
        plan = pruned(targets, parallel, now)
        assert sorted(plan.paths) == [
            f"{world.mount}/klearstack/{one}/{kind}" for one in ("Acme/27", "Other/28") for kind in Kind
        ]
        assert (plan.kept, plan.is_large) == (4, True)
        targets.ensure(Identity("28", "Other"))
        with vault(world, "staging") as others:  # another manifest has it by now
            others.ensure(Identity("28", "Other"), renew=True)
        run = Deletion("production")
        run.run(plan, parallel)
    assert (run.paths, len(run.places), run.failures.total()) == (2, 1, 0)
    assert len(secrets(world)) == 10


def test_prune_deletes_what_the_whole_manifest_no_longer_has(kv2: World) -> None:
    world = kv2
    head = "name: production\n"
    assert sync(world, manifest(world, range(12), head))[0] == 0
    path = manifest(world, range(1, 12), head)
    before = secrets(world)
    code, out, err, _ = sync(world, path, "--prune", "--check", "--detailed-exitcode")
    assert (code, err) == (2, "")
    assert out.splitlines()[1:] == [
        *(f"would delete {world.mount}/klearstack/Acme/0/{kind}" for kind in Kind),
        "2 paths of 1 identity would be pruned",
    ]
    assert secrets(world) == before
    code, out, err, _ = sync(world, path, "--prune", "--shard", "1/4", "--detailed-exitcode")
    assert (code, err, out.splitlines()[1]) == (2, "", "2 paths of 1 identity pruned")
    assert before - secrets(world) == {f"klearstack/Acme/0/{kind}" for kind in Kind}
    few = manifest(world, range(1, 9), head)
    before = secrets(world)
    code, out, err, _ = sync(world, few, "--prune", "--renew")
    assert (code, out) == (64, "")
    assert "6 paths of 3 identities would be pruned, which is more than 10 %: nothing was changed" in err
    assert (secrets(world), world.endpoint.mints) == (before, 12)
    assert sync(world, few, "--prune", "--yes")[1].splitlines()[1] == "6 paths of 3 identities pruned"


def test_renew_mints_for_every_identity(kv2: World) -> None:
    world = kv2
    path = manifest(world, range(3))
    assert sync(world, path)[0] == 0
    assert sync(world, path, "--renew", "--check")[1] == "3 identities: 3 to be minted\n"
    assert sync(world, path, "--renew", "--rate", "100")[1] == "3 identities: 3 minted\n"
    assert world.endpoint.mints == 6


def test_a_renewed_token_gets_into_each_vault_by_one_mint(kv2: World) -> None:
    path = manifest(kv2, range(1), "targets:\n- {path_prefix: one}\n- {path_prefix: two}\n")
    assert sync(kv2, path)[0] == 0
    old = kv2.vault.read(kv2.mount, "one/Acme/0/access")
    assert sync(kv2, path, "--renew")[1] == "1 identity: 1 minted\n"
    new = [kv2.vault.read(kv2.mount, f"{prefix}/Acme/0/access") for prefix in ("one", "two")]
    assert new[0] == new[1] != old
    assert kv2.endpoint.mints == 2


def test_a_vault_that_does_not_respond_ends_a_command_by_its_deadline(kv2: World) -> None:
    kv2.store()
    with FaultProxy(kv2.vault.address) as proxy, proxy.hold(lambda line: line.startswith("LIST")):
        done = kv2.run("status", "--deadline", "0.5s", VAULT_ADDR=proxy.address)
    assert (done.returncode, done.stdout) == (69, "")
    assert "The deadline passed before Vault had responded to all requests." in done.stderr


def test_what_fails_for_one_identity_does_not_stop_the_others(kv2: World) -> None:
    path = manifest(kv2, range(3))
    assert sync(kv2, path)[0] == 0
    policy = f"""
    path "{kv2.mount}/*" {{ capabilities = ["read", "list", "delete"] }}
    path "{kv2.mount}/metadata/klearstack/Acme/1/access" {{ capabilities = ["read"] }}
    """
    done = kv2.run("delete", path, "--yes", VAULT_TOKEN=kv2.vault.policy_token(policy))
    assert (done.returncode, done.stdout) == (5, "4 paths of 2 identities deleted\n")
    assert done.stderr.startswith(
        "klearstack-vault: 1 identity failed: Vault denied the deletion (status 403)."
    )
    done = kv2.run("delete", "--user-id", "1", "--yes", VAULT_TOKEN=kv2.vault.policy_token(policy))
    assert (done.returncode, done.stdout) == (77, "0 paths of 0 identities deleted\n")
    until(lambda: len(secrets(kv2)) == 2)
