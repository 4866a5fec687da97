"""Vault's rate limit quotas: a rejected request waits for the rate limiter, and no token is minted meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.cli import World
from support.fakes import ACME
from support.fault_proxy import FaultProxy
from support.quotas import audited_vault
from support.vault import Vault

from vault_plugin.demo.simulator import Simulator
from vault_plugin.errors import StoreBusyError
from vault_plugin.settings import Settings
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.store import VaultStore
from vault_plugin.vault.transport import Transport

LOOK = "/v1/sys/seal-status"
INDEX = "eyJjbHVzdGVyX2lkIjoieCJ9"  # which OpenBao can decode, and which is another cluster's
QUOTA = b'{"errors":["request path \\"x\\": rate limit quota exceeded"]}'
LAGS = b'{"errors":[]}\n'


def manifest(world: World, users: int) -> str:
    path = world.home / "manifest.csv"
    path.write_text("user_id\n" + "".join(f"{user}\n" for user in range(users)))
    return str(path)


def test_a_quota_makes_a_sync_slower_and_nothing_else(tmp_path: Path) -> None:
    users = 6
    with audited_vault(tmp_path) as vault, Simulator() as endpoint:
        world = World(endpoint, vault, vault.mount("v2"), tmp_path)
        vault.limit(world.mount, 20)
        done = world.run("sync", manifest(world, users))
        vault.unlimit()
        assert (done.returncode, done.stdout, done.stderr) == (0, "6 identities: 6 minted\n", "")
        assert endpoint.mints == users
        writes = vault.writes(world.mount)
        assert max(count for path, count in writes.items() if path.startswith("data/")) <= 2
        assert writes.total() <= 1.5 * users * 4  # tests/long has 100 identities, and 1.1
        for user in range(users):
            for kind in ("access", "refresh"):
                lateness = vault.lateness(world.mount, user, kind)
                assert lateness is not None
                assert lateness <= 0


def test_while_vault_rejects_requests_no_further_token_is_minted(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: line.startswith("POST"), 429, when="before", times=99, retry_after=60)
        done = kv2.run(
            *("sync", manifest(kv2, 5), "--concurrency", "1"),
            VAULT_ADDR=proxy.address,
            KLEARSTACK_DEADLINE="5",
        )
        assert done.returncode == 5
        assert "5 identities failed (lines " in done.stderr
        assert done.stderr.count("its rate limit quota is exceeded (status 429)") == 1
        assert kv2.endpoint.requests == 1  # by the identity that met the quota first
        assert sum(line.startswith("POST") for line in proxy.requests) == 1


def test_a_single_429_delays_a_get_by_a_moment(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.answer(lambda line: "/access" in line, 429, when="before", times=1, retry_after=0, body=QUOTA)
        answer = kv2.get(VAULT_ADDR=proxy.address)
    assert answer["source"] == "endpoint"
    # The warm read is not repeated on the other version's path.
    assert not any(f"GET /v1/{kv2.mount}/klearstack" in line for line in proxy.requests)


class Client:
    """Transports over a rate limiter of their own; `slept` are their delays."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self.slept: list[float] = []
        self.limiter = AdaptiveRateLimiter()

    def to(self, *addresses: str) -> Transport:
        made = Transport(addresses, ServerClock(), timeout=5, limiter=self.limiter, sleep=self.slept.append)
        self._closing.callback(made.close)
        return made

    @property
    def is_limited(self) -> bool:
        return self.limiter.rate < float("inf")


@pytest.fixture
def client() -> Iterator[Client]:
    with ExitStack() as closing:
        yield Client(closing)


@pytest.mark.parametrize(("status", "body"), [(429, LAGS), (412, LAGS), (412, b"")])
def test_a_standby_that_lags_behind_is_no_quota(client: Client, bao: Vault, status: int, body: bytes) -> None:
    with FaultProxy(bao.address) as standby:
        standby.answer(lambda _: True, status, when="before", times=1, retry_after=30, body=body)
        transport = client.to(standby.address, bao.address)
        transport.index = INDEX
        assert transport.request("GET", LOOK, {}, None, Deadline(5)).status == 200
        assert len(standby.requests) == 1  # the other node was asked
    assert max(client.slept, default=0) < 1
    assert not client.is_limited


@pytest.mark.parametrize(
    ("index", "body"), [(INDEX, QUOTA), (INDEX, b"<html>slow down</html>"), (None, LAGS)]
)
def test_any_other_429_is_one(client: Client, bao: Vault, index: str | None, body: bytes) -> None:
    with FaultProxy(bao.address) as proxy:
        proxy.answer(lambda _: True, 429, when="before", times=1, retry_after=2, body=body)
        transport = client.to(proxy.address)
        transport.index = index
        assert transport.request("GET", LOOK, {}, None, Deadline(5)).status == 200
    assert 2 < client.slept[0] < 3
    assert client.is_limited


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_accepts_nothing(client: Client, bao: Vault, status: int) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = client.to(proxy.address)
        for answer in (429, status):
            proxy.answer(lambda _: True, answer, when="before", times=1)
            transport.once("GET", LOOK, {}, None, 5)
        assert transport.quota.is_throttled
        transport.once("GET", LOOK, {}, None, 5)
        assert not transport.quota.is_throttled


def test_requests_that_belong_together_wait_once(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = client.to(proxy.address)
        proxy.answer(lambda _: True, 429, when="before", times=1)
        transport.once("GET", LOOK, {}, None, 5)
        transport.quota.reserve(2, Deadline(60))
        assert len(client.slept) == 1
        client.limiter._closed_until = 0.0  # the sleep took no time
        for _ in range(2):
            transport.request("GET", LOOK, {}, None, Deadline(60))
        assert len(client.slept) == 1
        transport.request("GET", LOOK, {}, None, Deadline(60))
        assert len(client.slept) == 2


def test_requests_that_belong_together_wait_again_if_vault_rejects_one(client: Client, bao: Vault) -> None:
    with FaultProxy(bao.address) as proxy:
        transport = client.to(proxy.address)
        transport.quota.reserve(2, Deadline(60))
        proxy.answer(lambda _: True, 429, when="before", times=1, retry_after=1)
        transport.request("GET", LOOK, {}, None, Deadline(60))
        assert [delay > 1 for delay in client.slept] == [True]


def test_where_the_quota_has_room_for_one_request_each_waits(client: Client, bao: Vault) -> None:
    client.limiter._rate = 0.5
    transport = client.to(bao.address)
    assert transport.quota.gap == 2
    transport.quota.reserve(2, Deadline(60))
    for _ in range(2):
        transport.request("GET", LOOK, {}, None, Deadline(60))
    assert [delay > 1.5 for delay in client.slept] == [True]  # the first waits for nobody


def test_a_request_waits_again_if_another_is_rejected_meanwhile(client: Client, bao: Vault) -> None:
    transport = client.to(bao.address)
    client.limiter.refuse(0, 0)

    def meanwhile(seconds: float) -> None:
        client.slept.append(seconds)
        if len(client.slept) == 1:
            client.limiter.refuse(3, float("inf"))

    transport.quota._sleep = meanwhile
    transport.request("GET", LOOK, {}, None, Deadline(60))
    assert [delay > 3 for delay in client.slept] == [False, True]


def store(world: World, transport: Transport) -> VaultStore:
    environ: dict[str, Any] = {**world.environ}
    vault = VaultClient(transport, Settings.from_env(environ))
    return VaultStore(vault, ServerClock(), world.mount, "klearstack")


def test_before_a_mint_vault_must_have_accepted_a_request_again(kv2: World, client: Client) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        transport = client.to(proxy.address)
        one = store(kv2, transport)
        one.read(ACME, Kind.ACCESS, Deadline(5))
        asked = len(proxy.requests)
        with one.mint(ACME, Deadline(5)):
            assert len(proxy.requests) == asked  # it has accepted the last one
        proxy.answer(lambda _: True, 429, when="before", times=2)
        transport.once("GET", LOOK, {}, None, 5)
        with one.mint(ACME, Deadline(5)):
            assert not transport.quota.is_throttled
        assert ["/access" in line for line in proxy.requests[asked:]] == [False, True, True]


def test_a_mint_that_could_not_be_stored_before_the_deadline_raises_store_busy(
    kv2: World, client: Client
) -> None:
    client.limiter.refuse(10, 0)
    one = store(kv2, client.to(kv2.vault.address))
    with pytest.raises(StoreBusyError, match="429") as caught, one.mint(ACME, Deadline(5)):
        raise AssertionError
    assert caught.value.retryable
