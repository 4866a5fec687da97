"""That Vault deletes each token when its JWT expires: late versions, their causes, and who corrects them."""

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cli import COMMAND, World
from support.fakes import ACME, token
from support.fault_proxy import FaultProxy
from support.vault import Vault
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import StoreError, TokenError
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock, parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import PathState, StoredToken
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.kv2 import Kv2
from vault_plugin.vault.store import VaultStore
from vault_plugin.vault.transport import Transport

ACCESS = "klearstack/Acme/26/access"
REFRESH = "klearstack/Acme/26/refresh"


class Bench:
    """Stores over one mount of a real Vault, closed at the end."""

    def __init__(self, vault: Vault, mount: str, closing: ExitStack) -> None:
        self.vault, self.mount, self._closing = vault, mount, closing
        self.data, self.metadata = (f"POST /v1/{mount}/{part}/" for part in ("data", "metadata"))

    def store(self, address: str = "", mount: str = "") -> VaultStore:
        clock = ServerClock()
        transport = Transport([address or self.vault.address], clock, timeout=30)
        self._closing.callback(transport.close)
        settings = Settings.from_env(
            {"VAULT_TOKEN": self.vault.root_token},
            user_id="-",
            company_name="-",
            url="http://127.0.0.1:1",
            vault_addr=self.vault.address,
        )
        return VaultStore(VaultClient(transport, settings), clock, mount or self.mount, "klearstack")

    def is_data(self, line: str) -> bool:
        return line.startswith(self.data)


@pytest.fixture
def bench(bao: Vault) -> Iterator[Bench]:
    with ExitStack() as closing:
        yield Bench(bao, bao.mount("v2"), closing)


def read(store: VaultStore) -> PathState:
    return store.read(ACME, Kind.ACCESS, Deadline(30))


def put(store: VaultStore, made: Token, state: PathState | None = None, age: float = 0.0) -> StoredToken:
    return store.write(ACME, made, "7.8.9", state or read(store), Deadline(30), age)


def new(life: int = 60) -> Token:
    return token(at=int(time.time()), life=life)


def early(stored: StoredToken) -> float:
    """Seconds before its JWT expires that Vault deletes it."""
    return stored.token.expires_at - (parse_rfc3339(stored.ref.deletion_time) or 0)


# A write that arrives late


def test_a_write_that_was_held_back_is_corrected_before_the_call_returns(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.delay(bench.is_data, 2.6, times=1)
        stored = put(bench.store(proxy.address), new())
    assert stored.ref.version == 2
    assert 0 <= early(stored) <= 3 + 2.7


def test_a_life_that_was_set_late_is_set_again_before_the_token_is_written(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.delay(lambda line: line.startswith(bench.metadata), 2.6, times=1)
        stored = put(bench.store(proxy.address), new())
        sent = [line.split("/")[3] for line in proxy.requests if line.startswith("POST")]
    assert sent[:2] == ["metadata", "metadata"]
    assert sent.count("data") == stored.ref.version == 1
    assert 0 <= early(stored) <= 3 + 2.7


@pytest.mark.parametrize(
    ("status", "retry_after", "times"), [(429, 1, 3), (412, 1, 12), (503, 1, 12)], ids=["429", "412", "503"]
)
def test_a_life_is_set_again_before_a_write_is_repeated_after_a_long_wait(
    bench: Bench, status: int, retry_after: int, times: int
) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.answer(bench.is_data, status, when="before", times=times, retry_after=retry_after)
        stored = put(bench.store(proxy.address), new())
        assert proxy.all_happened()
        lives = [line for line in proxy.requests if line.startswith(bench.metadata)]
    assert stored.ref.version == 1
    assert 0 <= early(stored) <= 3 + 5
    assert 2 <= len(lives) <= 4


def test_a_write_that_was_carried_out_late_and_whose_response_was_lost_is_corrected(bench: Bench) -> None:
    made = new()
    with FaultProxy(bench.vault.address) as proxy:
        proxy.delay(bench.is_data, 2.6, times=1)
        proxy.reset(bench.is_data, when="after", times=1)
        stored = put(bench.store(proxy.address), made)
        assert proxy.all_happened()
    assert (stored.token, stored.ref.version) == (made, 2)
    assert 0 <= early(stored) <= 3 + 2.7


def test_a_token_that_expires_while_its_write_is_held_back_leaves_nothing_behind(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.delay(bench.is_data, 3.5, times=1)
        with pytest.raises(TokenError, match="expires before"):
            put(bench.store(proxy.address), new(life=4))
    newest = bench.vault.newest(bench.mount, ACCESS)
    assert newest["version"] == 2
    assert (parse_rfc3339(newest["deletion_time"]) or 0) - (
        parse_rfc3339(newest["created_time"]) or 0
    ) <= 1.001
    data = bench.vault.read(bench.mount, ACCESS)
    assert data is None or data["access_token"] == ""
    assert put(bench.store(), made := new()).token == made


def test_a_token_that_expires_before_its_write_is_sent_again_leaves_nothing_behind(
    bench: Bench,
) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.delay(bench.is_data, 3.5, times=1)
        proxy.reset(bench.is_data, when="after", times=1)
        with pytest.raises(TokenError, match="expires before"):
            put(bench.store(proxy.address), new(life=4))
        assert proxy.all_happened()
    assert bench.vault.newest(bench.mount, ACCESS)["version"] == 2
    data = bench.vault.read(bench.mount, ACCESS)
    assert data is None or data["access_token"] == ""


def test_a_token_that_was_stored_in_time_by_a_write_that_was_given_up_stays(bench: Bench) -> None:
    store, made = bench.store(), new()
    stored = put(store, made)
    engine = store._engine(Deadline(30))
    assert isinstance(engine, Kv2)
    task = engine.task(ACME, made, "7.8.9", PathState(), Deadline(30), 0.0)
    task.times.delayed = True
    assert engine._given_up(task, PathState()).stored == stored


# The next call that may write


def test_the_next_call_corrects_what_a_killed_process_left_late(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        environ = kv2.environ | {"VAULT_ADDR": proxy.address}
        with proxy.hold(lambda line: line.startswith(f"POST /v1/{kv2.mount}/data/{ACCESS}")) as arrived:
            process = subprocess.Popen([*COMMAND, "get"], env=environ, stdout=subprocess.PIPE)
            assert arrived.wait(30)
            process.kill()
            process.communicate()
            time.sleep(2.6)
        until(lambda: kv2.vault.metadata(kv2.mount, ACCESS)["current_version"])
    before = kv2.vault.newest(kv2.mount, ACCESS)
    expires_at = kv2.vault.read(kv2.mount, ACCESS)["expires_at"]  # type: ignore[index]
    assert (parse_rfc3339(before["deletion_time"]) or 0) > (parse_rfc3339(expires_at) or 0)
    answer = kv2.get()
    assert answer["source"] == "vault"
    assert answer["vault"]["deletion_time"] <= answer["expires_at"]
    assert answer["vault"]["version"] == 2
    assert kv2.endpoint.mints == 1


def undelete(world: World) -> None:
    """Another way to a late version: its lifetime begins again."""
    time.sleep(2.6)
    world.vault.admin.secrets.kv.v2.undelete_secret_versions(ACCESS, [1], mount_point=world.mount)


def keep_too_long(world: World) -> None:
    world.vault.keep_too_long(world.mount, ACCESS, "10h")


def sync(world: World, *arguments: str) -> str:
    """`sync` of the one identity; its report's result."""
    manifest, report = world.home / "manifest.jsonl", world.home / "report.jsonl"
    manifest.write_text('{"user_id": "26", "company_name": "Acme"}\n')
    done = world.run("sync", str(manifest), "--report", str(report), *arguments)
    assert done.returncode == 0, done.stderr
    return str(json.loads(report.read_text())["result"])


@pytest.mark.parametrize("how", [undelete, keep_too_long])
def test_get_corrects_a_late_version_without_a_mint_and_without_output(
    kv2: World, how: Callable[[World], None]
) -> None:
    kv2.store()
    how(kv2)
    answer = kv2.get()
    assert answer["vault"]["deletion_time"] <= answer["expires_at"]
    assert kv2.get()["vault"] == answer["vault"]  # The correction lasts.
    assert kv2.endpoint.mints == 1


@pytest.mark.parametrize("arguments", [[], ["--rate", "100"]], ids=["plain", "paced"])
def test_sync_corrects_a_late_version_without_a_mint(kv2: World, arguments: list[str]) -> None:
    kv2.store()
    keep_too_long(kv2)
    assert sync(kv2, *arguments) == "fresh"
    newest = kv2.vault.newest(kv2.mount, ACCESS)
    assert newest["version"] == 3
    assert newest["deletion_time"] <= kv2.get()["expires_at"]
    assert kv2.endpoint.mints == 1


def test_check_only_reports_a_late_version(kv2: World) -> None:
    kv2.store()
    keep_too_long(kv2)
    manifest = kv2.home / "manifest.jsonl"
    manifest.write_text('{"user_id": "26", "company_name": "Acme"}\n')
    done = kv2.run("sync", str(manifest), "--check", "--detailed-exitcode")
    assert done.returncode == 0
    assert "longer than its JWT is valid" in done.stderr
    assert kv2.vault.newest(kv2.mount, ACCESS)["version"] == 2


def test_each_of_several_vaults_is_corrected(kv2: World) -> None:
    mounts = [kv2.mount, kv2.vault.mount("v2")]
    settings = [
        Settings.from_env(
            kv2.environ | {"KLEARSTACK_VAULT_MOUNT": mount, "KLEARSTACK_LOCK_DIR": str(kv2.home)}
        )
        for mount in mounts
    ]
    with connect(settings[0], bulk=True) as first, connect(settings[1], bulk=True) as second:
        targets = Targets([first, second])
        targets.ensure(ACME)
        for mount in mounts:
            kv2.vault.keep_too_long(mount, ACCESS, "10h")
        result = targets.ensure(ACME)
    ends = [kv2.vault.newest(mount, ACCESS)["deletion_time"] for mount in mounts]
    expires_at = result.grant.access.token.expires_at
    assert [end for end in ends if (parse_rfc3339(end) or 0) > expires_at] == []
    assert (result.result, kv2.endpoint.mints) == ("fresh", 1)


def test_whoever_may_only_read_gets_the_token_of_a_late_version_with_a_warning(kv2: World) -> None:
    token = kv2.store()
    keep_too_long(kv2)
    reader = kv2.vault.policy_token(f'path "{kv2.mount}/data/*" {{ capabilities = ["read"] }}')
    done = kv2.run("get", VAULT_TOKEN=reader)
    assert (done.returncode, done.stdout) == (0, f"{token}\n")
    assert done.stderr.count("cannot be corrected now") == 1
    assert "403" in done.stderr
    assert kv2.vault.newest(kv2.mount, ACCESS)["version"] == 2


def test_with_vault_failing_meanwhile_the_token_of_a_late_version_is_returned(kv2: World) -> None:
    token = kv2.store()
    keep_too_long(kv2)
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: line.startswith("POST"), 501, when="before", times=99)
        done = kv2.run("get", VAULT_ADDR=proxy.address)
        tried = [line for line in proxy.requests if line.startswith("POST")]
    assert (done.returncode, done.stdout) == (0, f"{token}\n")
    assert "cannot be corrected now" in done.stderr
    assert len(tried) == 1


def test_a_late_version_whose_token_has_expired_is_overwritten_though_nothing_can_be_minted(
    kv2: World,
) -> None:
    kv2.endpoint.access_ttl = 6
    kv2.store()
    keep_too_long(kv2)
    time.sleep(6)
    kv2.endpoint.fault = "403"
    assert kv2.run("get").returncode == 77
    newest = kv2.vault.newest(kv2.mount, ACCESS)
    assert newest["version"] == 3
    assert (parse_rfc3339(newest["deletion_time"]) or 0) < time.time() + 2
    data = kv2.vault.read(kv2.mount, ACCESS)
    assert data is None or data["access_token"] == ""
    kv2.endpoint.fault = ""
    assert kv2.get()["source"] == "endpoint"


def test_a_late_refresh_token_is_corrected_where_it_is_asked_for(kv2: World) -> None:
    kv2.store()
    kv2.vault.keep_too_long(kv2.mount, REFRESH, "10000h")
    answer = kv2.get("--token", "both")
    assert answer["refresh_vault"]["deletion_time"] <= answer["refresh_expires_at"]
    assert (answer["vault"]["version"], answer["refresh_vault"]["version"]) == (1, 3)


def test_a_stale_token_is_printed_with_the_deletion_time_after_the_correction(kv2: World) -> None:
    kv2.endpoint.access_ttl = 60
    kv2.store()
    keep_too_long(kv2)
    kv2.endpoint.fault = "503"
    answer = json.loads(kv2.run("get", "--renew", "--format", "json").stdout)
    assert answer["stale"]
    assert answer["vault"]["deletion_time"] <= answer["expires_at"]


def test_a_late_version_of_another_writer_that_came_first_is_corrected_before_it_is_returned(
    bench: Bench,
) -> None:
    store, theirs = bench.store(), new()
    state = read(store)
    put(bench.store(), theirs)
    bench.vault.keep_too_long(bench.mount, ACCESS, "10h")
    stored = put(store, token(at=int(time.time()), life=60, jti="ours"), state)
    assert (stored.token, stored.ref.version) == (theirs, 3)
    assert 0 <= early(stored) <= 3


def test_whoever_comes_first_with_the_correction_is_not_overwritten(bench: Bench) -> None:
    store, made = bench.store(), new()
    put(store, made)
    bench.vault.keep_too_long(bench.mount, ACCESS, "10h")
    state = read(store)
    other = bench.store()
    other.repair(ACME, read(other), Deadline(30))
    repaired = store.repair(ACME, state, Deadline(30))
    assert (repaired.version, repaired.stored and repaired.stored.token) == (3, made)
    assert store.repair(ACME, repaired, Deadline(30)) == repaired


def test_an_expired_token_that_is_replaced_meanwhile_is_not_overwritten(bench: Bench) -> None:
    store, old = bench.store(), new(life=6)
    put(store, old)
    bench.vault.keep_too_long(bench.mount, ACCESS, "10h")
    state = read(store)
    time.sleep(max(0.0, old.expires_at - time.time()))
    newer = put(bench.store(), new())
    repaired = store.repair(ACME, state, Deadline(30))
    assert (repaired.version, repaired.stored and repaired.stored.token) == (3, newer.token)


def test_a_mount_without_expiry_is_served_and_not_rewritten(bao: Vault, kv2: World) -> None:
    kv2.mount = bao.mount("v2", delete_version_after="-1s")
    first = json.loads(kv2.run("get", "--format", "json").stdout)
    for _ in range(2):
        answer = kv2.get()
        assert (answer["vault"], answer["source"]) == (first["vault"], "vault")
    assert answer["vault"]["deletion_time"] is None


def test_a_mount_without_expiry_costs_two_tries(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    mount = bench.vault.mount("v2", delete_version_after="-1s")
    stored = put(bench.store(mount=mount), new())
    assert (stored.ref.version, stored.ref.deletion_time) == (2, None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# Clocks that disagree


def test_a_token_of_an_endpoint_whose_clock_is_ahead_lives_no_longer_than_its_life(kv2: World) -> None:
    kv2.endpoint.ahead, kv2.endpoint.access_ttl = 3600, 900
    done = kv2.run("get", "--format", "json")
    minted = json.loads(done.stdout)
    assert "behind" in done.stderr  # the two clocks
    created = parse_rfc3339(kv2.vault.newest(kv2.mount, ACCESS)["created_time"]) or 0
    assert 890 <= (parse_rfc3339(minted["vault"]["deletion_time"]) or 0) - created <= 900
    assert 890 <= minted["expires_in"] <= 900
    began = time.time()
    expires_in = kv2.get()["expires_in"]  # This caller has no response of the endpoint.
    assert created + 890 - time.time() <= expires_in <= created + 901 - began


def test_a_token_of_an_endpoint_whose_clock_is_ahead_is_not_served_when_it_has_expired(kv2: World) -> None:
    kv2.endpoint.ahead, kv2.endpoint.access_ttl = 3600, 4
    token = kv2.store()
    time.sleep(4)
    done = kv2.run("get", "--min-ttl", "0")
    assert done.stdout.strip() not in ("", token)
    assert kv2.endpoint.mints == 2


def test_the_time_since_the_mint_counts_for_a_token_whose_exp_is_far_away(bench: Bench) -> None:
    made = token(at=int(time.time()) + 3600, life=60)
    stored = put(bench.store(), made, age=20.0)
    created = parse_rfc3339(stored.ref.created_time) or 0
    assert 36 <= (parse_rfc3339(stored.ref.deletion_time) or 0) - created <= 40
    again = bench.store()
    bench.vault.keep_too_long(bench.mount, ACCESS, "10h")
    repaired = again.repair(ACME, read(again), Deadline(30)).stored
    assert repaired is not None
    assert early(repaired) >= 3600 - 3


def test_what_cannot_be_corrected_for_lack_of_a_response_is_an_error(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        store = bench.store(proxy.address)
        state = read(store)
        proxy.delay(bench.is_data, 2.6, times=1)
        proxy.answer(bench.is_data, 501, when="after", times=1)
        with pytest.raises(StoreError, match="not initialized"):
            put(store, new(), state)
    late = read(bench.store()).stored
    assert late is not None
    assert late.overdue > 0


def test_the_longest_life_that_vault_takes_is_no_reason_to_write_again(bench: Bench, tmp_path: Path) -> None:
    made = token(at=int(time.time()), life=300 * 366 * 86400)
    stored = put(bench.store(), made)
    assert stored.ref.version == 1
    assert put(bench.store(), token(at=int(time.time()), life=60), PathState()).token == made


def test_two_identities_do_not_share_response_times(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        store = bench.store(proxy.address)
        proxy.delay(bench.is_data, 2.6, times=1)
        put(store, new())
        other = Identity("27", "Acme")
        state = store.read(other, Kind.ACCESS, Deadline(30))
        stored = store.write(other, new(), "7.8.9", state, Deadline(30))
    assert 0 <= early(stored) <= 3
