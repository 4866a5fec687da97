"""Lifetimes, check-and-set and lost responses on a real Vault's KV v2."""

import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from support.fakes import ACME, token
from support.fault_proxy import FaultProxy
from support.punctual import earliest
from support.vault import Vault

from vault_plugin.errors import (
    ForeignSecretError,
    MountMissingError,
    StoreError,
    StoreRefusedError,
    StoreSettingsError,
    TokenError,
)
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock, parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import StoredToken
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.record import MANAGED_BY, to_data
from vault_plugin.vault.store import VaultStore
from vault_plugin.vault.transport import Transport


class Bench:
    """Stores over real Vaults, closed at the end."""

    def __init__(self, vault: Vault, mount: str, closing: ExitStack) -> None:
        self.vault, self.mount, self._closing = vault, mount, closing

    def store(
        self, address: str = "", *, mount: str = "", token: str = "", clock: ServerClock | None = None
    ) -> VaultStore:
        clock = clock or ServerClock()
        transport = Transport([address or self.vault.address], clock, timeout=2)
        self._closing.callback(transport.close)
        settings = Settings.from_env(
            {"VAULT_TOKEN": token or self.vault.root_token},
            user_id="-",
            company_name="-",
            url="http://127.0.0.1:1",
            vault_addr=self.vault.address,
        )
        return VaultStore(VaultClient(transport, settings), clock, mount or self.mount, "p")


@pytest.fixture
def bench(bao: Vault) -> Iterator[Bench]:
    with ExitStack() as closing:
        yield Bench(bao, bao.mount("v2"), closing)


def put(store: VaultStore, made: Token, identity: Identity = ACME) -> StoredToken:
    state = store.read(identity, made.kind, Deadline(20))
    return store.write(identity, made, "7.8.9", state, Deadline(20))


def early(stored: StoredToken) -> float:
    """Seconds before its JWT expires that Vault deletes it."""
    return stored.token.expires_at - (parse_rfc3339(stored.ref.deletion_time) or 0)


def test_100_tokens_of_mixed_lifetimes_are_deleted_within_3_seconds_before_they_expire(bench: Bench) -> None:
    lives = [30, 30 * 86400, *(round(30 * (86400 ** random.random())) for _ in range(98))]  # 30 s to 30 days

    def one(number: int) -> tuple[float, float]:
        made, began = token(at=int(time.time()), life=lives[number], user_id=number), time.monotonic()
        gap = early(put(bench.store(), made, Identity(str(number), "Acme")))
        return gap, time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        gaps = list(pool.map(one, range(100)))
    assert [(gap, took) for gap, took in gaps if not 0 <= gap <= earliest(took)] == []


@pytest.mark.parametrize("skew", [-300, -5, 5, 300])
def test_our_own_clock_does_not_matter(bench: Bench, skew: int) -> None:
    store = bench.store(clock=ServerClock(wall=lambda: time.time() + skew))
    assert 0 <= early(put(store, token(at=int(time.time())))) <= 3


def test_a_life_too_short_for_vault_is_not_stored_without_limit(bench: Bench) -> None:
    with pytest.raises(TokenError, match="expires before"):
        put(bench.store(), token(at=int(time.time()) - 899))
    assert bench.vault.read(bench.mount, ACME.path("p", Kind.ACCESS)) is None


def test_renewal_with_an_unchanged_life_is_one_read_and_one_write(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        for _ in range(3):  # the life settles within a second's fraction of the clock
            put(bench.store(), token(at=int(time.time())))
        store = bench.store(proxy.address)
        store.read(ACME, Kind.REFRESH, Deadline(20))  # the mount has been looked at
        before = len(proxy.requests)
        put(store, token(at=int(time.time())))
        assert [line.split(" ")[0] for line in proxy.requests[before:]] == ["GET", "POST"]


def test_old_versions_are_not_kept(bench: Bench) -> None:
    for _ in range(3):
        put(bench.store(), token(at=int(time.time())))
    assert list(bench.vault.metadata(bench.mount, ACME.path("p", Kind.ACCESS))["versions"]) == ["3"]


def test_the_path_says_who_manages_it(bench: Bench) -> None:
    put(bench.store(), token(at=int(time.time())))
    metadata = bench.vault.metadata(bench.mount, ACME.path("p", Kind.ACCESS))
    assert metadata["custom_metadata"] == {"managed-by": "klearstack-vault"}
    assert metadata["max_versions"] == 1


def test_the_path_says_who_issued_its_token_as_soon_as_that_is_known_or_changes(bench: Bench) -> None:
    def marked() -> str | None:
        custom = bench.vault.metadata(bench.mount, ACME.path("p", Kind.ACCESS))["custom_metadata"]
        assert custom["managed-by"] == "klearstack-vault"
        return str(custom["issued-by"]) if "issued-by" in custom else None

    for _ in range(3):  # the life settles, so that the last write changes nothing of the path
        put(bench.store(), token(at=int(time.time())))
    assert marked() is None  # as version 0.1.0 left it
    for url in ("https://staging.example", "https://api.example"):
        for _ in range(2):
            put(bench.store(), token(at=int(time.time()), by=url))
        assert marked() == url
        data = bench.vault.read(bench.mount, ACME.path("p", Kind.ACCESS))
        assert data is not None
        assert data["issued_by"] == url


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_misdated_token_of_version_010_that_has_expired_does_not_block_its_path(
    bench: Bench, version: str, kind: Kind
) -> None:
    mount, path, now = bench.vault.mount(version), ACME.path("p", kind), int(time.time())
    bad = token(kind, at=now + 10 * 365 * 86400, exp=now - 1)
    bench.vault.write(mount, path, to_data(bad, ACME, "7.8.9"))
    if version == "v2":  # it has expired, but Vault's expiry was switched off when it was written
        kv = bench.vault.admin.secrets.kv.v2
        kv.update_metadata(path, mount_point=mount, custom_metadata=MANAGED_BY)
    new = token(kind, at=now)
    assert put(bench.store(mount=mount), new).token == new


def test_an_expired_token_is_not_written_to_kv_v1(bench: Bench) -> None:
    mount = bench.vault.mount("v1")
    store, kept = bench.store(mount=mount), token(at=int(time.time()) - 950, exp=int(time.time()) + 60)
    put(store, kept)
    with pytest.raises(TokenError, match="expired before it could be stored"):
        put(store, token(at=int(time.time()) - 910))
    assert store.read(ACME, Kind.ACCESS, Deadline(20)).stored is not None


@pytest.mark.parametrize("gone", ["deleted", "destroyed"])
def test_an_unmanaged_path_is_not_overwritten_although_its_newest_version_is_deleted(
    bench: Bench, gone: str
) -> None:
    path, kv = ACME.path("p", Kind.ACCESS), bench.vault.admin.secrets.kv.v2
    for secret in ("old", "new"):
        bench.vault.write(bench.mount, path, {"password": secret})
    if gone == "deleted":
        kv.delete_latest_version_of_secret(path, mount_point=bench.mount)
    else:
        bench.vault.destroy(bench.mount, path, 2)
    before = bench.vault.metadata(bench.mount, path)
    with pytest.raises(ForeignSecretError):
        bench.store().read(ACME, Kind.ACCESS, Deadline(20))
    with pytest.raises(ForeignSecretError):
        put(bench.store(), token(at=int(time.time())))
    assert bench.vault.metadata(bench.mount, path) == before


def test_an_unmanaged_path_whose_newest_version_is_deleted_meanwhile_is_not_overwritten(bench: Bench) -> None:
    path, kv = ACME.path("p", Kind.ACCESS), bench.vault.admin.secrets.kv.v2
    store = bench.store()
    state = store.read(ACME, Kind.ACCESS, Deadline(20))

    def intrude() -> None:
        bench.vault.write(bench.mount, path, {"password": "theirs"})
        kv.delete_latest_version_of_secret(path, mount_point=bench.mount)
        kv.update_metadata(path, mount_point=bench.mount, custom_metadata={"owner": "somebody"})

    with FaultProxy(bench.vault.address) as proxy:
        proxy.before(lambda line: line.startswith(f"POST /v1/{bench.mount}/data/"), intrude, times=1)
        with pytest.raises(ForeignSecretError):
            bench.store(proxy.address).write(ACME, token(at=int(time.time())), "7.8.9", state, Deadline(20))
    assert bench.vault.metadata(bench.mount, path)["current_version"] == 1


def test_a_mount_that_shortens_lifetimes_is_warned_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    mount = bench.vault.mount("v2", delete_version_after="60s")
    stored = put(bench.store(mount=mount), token(at=int(time.time())))
    assert early(stored) > 800
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "after 60 s" in caplog.text


def test_a_mount_that_switches_expiry_off_is_warned_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    mount = bench.vault.mount("v2", delete_version_after="-1s")
    stored = put(bench.store(mount=mount), token(at=int(time.time())))
    assert stored.ref.deletion_time is None
    assert "switches expiry off" in caplog.text


def test_a_life_that_another_writer_set_meanwhile_is_corrected(bench: Bench) -> None:
    path = f"POST /v1/{bench.mount}/data/"
    made = token(at=int(time.time()), life=60)

    def lengthen() -> None:
        bench.vault.set_life(bench.mount, ACME.path("p", Kind.ACCESS), "10h")

    with FaultProxy(bench.vault.address) as proxy:
        proxy.before(lambda line: line.startswith(path), lengthen, times=1)
        stored = put(bench.store(proxy.address), made)
        assert proxy.all_happened()
    assert 0 <= early(stored) <= 3
    assert stored.ref.version == 2


def test_8_writers_on_one_path_end_with_a_token_that_is_deleted_in_time(bench: Bench) -> None:
    lives = [60, 120, 300]

    def one(number: int) -> StoredToken:
        return put(bench.store(), token(at=int(time.time()), life=random.choice(lives), jti=str(number)))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(64)))
    last = bench.store().read(ACME, Kind.ACCESS, Deadline(20)).stored
    assert last is not None
    assert 0 <= early(last) <= 3
    assert last.token in [result.token for result in results]


@pytest.mark.parametrize("request_line", ["metadata", "data"])
@pytest.mark.parametrize("when", ["after", "before"])
def test_a_lost_response_leads_to_no_second_version(bench: Bench, request_line: str, when: str) -> None:
    made = token(at=int(time.time()))
    with FaultProxy(bench.vault.address) as proxy:
        proxy.reset(
            lambda line: line.startswith(f"POST /v1/{bench.mount}/{request_line}/"), when=when, times=1
        )
        stored = put(bench.store(proxy.address), made)
        assert proxy.all_happened()
    assert (stored.token, stored.ref.version) == (made, 1)
    assert 0 <= early(stored) <= 3
    assert bench.vault.metadata(bench.mount, stored.ref.path)["current_version"] == 1


# A second redirect to a node that is not named is final.
@pytest.mark.parametrize(("status", "times"), [(500, 2), (502, 2), (503, 2), (307, 1), (429, 2)])
def test_a_response_that_leaves_the_result_open_leads_to_no_second_version(
    bench: Bench, status: int, times: int
) -> None:
    made = token(at=int(time.time()))
    with FaultProxy(bench.vault.address) as proxy:
        proxy.answer(
            lambda line: line.startswith(f"POST /v1/{bench.mount}/data/"), status, when="after", times=times
        )
        stored = put(bench.store(proxy.address), made)
        assert proxy.all_happened()
    assert (stored.token, stored.ref.version) == (made, 1)


def test_a_lost_response_does_not_let_an_older_token_win(bench: Bench) -> None:
    old, new = token(at=int(time.time()) - 5), token(at=int(time.time()))
    with FaultProxy(bench.vault.address) as proxy:
        data = f"POST /v1/{bench.mount}/data/"
        proxy.reset(lambda line: line.startswith(data), when="before", times=1)
        proxy.before(lambda line: line.startswith(data), lambda: put(bench.store(), new), times=1)
        assert put(bench.store(proxy.address), old).token == new
        assert proxy.all_happened()


def test_the_readmes_policy_suffices_and_denies_another_mount(bench: Bench) -> None:
    limited = bench.vault.policy_token(f"""
        path "{bench.mount}/data/p/*"     {{ capabilities = ["update", "read"] }}
        path "{bench.mount}/metadata/p/*" {{ capabilities = ["create", "update"] }}
    """)
    made = token(at=int(time.time()))
    assert put(bench.store(token=limited), made).token == made
    with pytest.raises(StoreRefusedError, match="403") as caught:
        bench.store(token=limited, mount=bench.vault.mount("v2")).read(ACME, Kind.ACCESS, Deadline(20))
    assert "policy" in caught.value.hint


def test_a_wrong_vault_token_is_distinguished_from_a_policy_that_lacks_a_capability(bench: Bench) -> None:
    with pytest.raises(StoreRefusedError) as caught:
        bench.store(token="hvs.wrong").read(ACME, Kind.ACCESS, Deadline(20))
    assert "does not know the Vault token" in caught.value.hint


def test_a_mount_that_is_not_kv_is_reported(bench: Bench) -> None:
    for mount in ("sys", f"{bench.mount}/below"):
        with pytest.raises(MountMissingError, match="No KV"):
            bench.store(mount=mount).read(ACME, Kind.ACCESS, Deadline(20))


def test_a_destroyed_version_leaves_a_path_that_can_be_written(bench: Bench) -> None:
    put(bench.store(), token(at=int(time.time())))
    bench.vault.destroy(bench.mount, ACME.path("p", Kind.ACCESS), 1)
    made = token(at=int(time.time()))
    stored = put(bench.store(), made)
    assert (stored.token, stored.ref.version) == (made, 2)


def test_a_lifetime_that_cannot_be_corrected_is_an_error(bench: Bench) -> None:
    path = ACME.path("p", Kind.ACCESS)
    with FaultProxy(bench.vault.address) as proxy:
        proxy.before(
            lambda line: line.startswith(f"POST /v1/{bench.mount}/data/"),
            lambda: bench.vault.set_life(bench.mount, path, "10h"),
            times=99,
        )
        with pytest.raises(StoreError, match="longer than its JWT is valid") as caught:
            put(bench.store(proxy.address), token(at=int(time.time()), life=60))
    assert caught.value.retryable


def test_a_mount_that_turned_into_kv_v1_is_reported(bench: Bench) -> None:
    store = bench.store()
    store.read(ACME, Kind.ACCESS, Deadline(20))  # from now on it takes the mount for KV v2
    bench.vault.admin.sys.disable_secrets_engine(bench.mount)
    bench.vault.admin.sys.enable_secrets_engine("kv", path=bench.mount, options={"version": "1"})
    with pytest.raises(StoreError, match="is not version 2"):
        put(store, token(at=int(time.time())))


def test_a_page_in_place_of_vaults_response_is_reported(bench: Bench) -> None:
    with FaultProxy(bench.vault.address) as proxy:
        proxy.answer(lambda line: "/data/" in line, 200, body=b"<html>", when="before", times=1)
        with pytest.raises(StoreSettingsError, match="not Vault"):
            bench.store(proxy.address).read(ACME, Kind.ACCESS, Deadline(20))
