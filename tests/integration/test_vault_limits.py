"""Vault's own variables that limit requests: how often one is sent again, how many there are per second, how long each takes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.cli import World
from support.drip import dripping
from support.fault_proxy import FaultProxy
from support.ports import own_port
from support.punctual import SLACK
from support.vault import Vault

from vault_plugin.app import connect
from vault_plugin.errors import StoreBusyError, StoreError
from vault_plugin.settings import Settings
from vault_plugin.settings.values import RateLimit
from vault_plugin.timing.clock import ServerClock, parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.transport import Transport
from vault_plugin.wording import worded

LOOK = "/v1/sys/seal-status"
QUOTA = b'{"errors": ["request path \\"x\\": rate limit quota exceeded"]}'


class Client:
    """Transports that are closed at the end; `slept` are their delays."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self.slept: list[float] = []

    def to(self, *addresses: str, **how: Any) -> Transport:
        made = Transport(addresses, ServerClock(), timeout=5, sleep=self.slept.append, **how)
        self._closing.callback(made.close)
        return made


@pytest.fixture
def client() -> Iterator[Client]:
    with ExitStack() as closing:
        yield Client(closing)


@pytest.mark.parametrize(("status", "body"), [(503, b""), (429, QUOTA), (412, b'{"errors": []}')])
def test_a_request_is_sent_again_as_often_as_max_retries_says(
    bao: Vault, client: Client, status: int, body: bytes
) -> None:
    for most in (0, 2):
        with FaultProxy(bao.address) as proxy:
            proxy.answer(lambda _: True, status, when="before", times=99, body=body, retry_after=0)
            with pytest.raises(StoreError, match=rf"status {status}"):
                client.to(proxy.address, max_retries=most).request("GET", LOOK, {}, None, Deadline(20))
            assert len(proxy.requests) == 1 + most


def test_max_retries_holds_over_all_nodes_and_for_connections_that_are_refused(
    bao: Vault, client: Client
) -> None:
    dead = f"http://127.0.0.1:{own_port()}"
    with pytest.raises(StoreError, match="connection refused"):
        client.to(dead, bao.address, max_retries=0).request("GET", LOOK, {}, None, Deadline(20))
    assert client.slept == []
    found = client.to(dead, bao.address, max_retries=1).request("GET", LOOK, {}, None, Deadline(20))
    assert (found.status, len(client.slept)) == (200, 1)


def test_requests_wait_for_the_rate_limit_of_the_settings(bao: Vault, client: Client) -> None:
    transport = client.to(bao.address, rate_limit=RateLimit(1, 3))
    for _ in range(3):
        transport.request("GET", LOOK, {}, None, Deadline(20))
    assert client.slept == []
    transport.once("GET", LOOK, {}, None, 20)
    transport.request("GET", LOOK, {}, None, Deadline(20))
    first, second = client.slept
    assert 0 < first <= 1
    assert 1 < second <= 2


def test_a_rate_limit_that_leaves_no_time_ends_the_call_and_is_named(bao: Vault, client: Client) -> None:
    transport = client.to(bao.address, rate_limit=RateLimit(0.01, 1))
    transport.request("GET", LOOK, {}, None, Deadline(5))
    said = "the rate limit of the settings leaves no time"
    with pytest.raises(StoreBusyError, match=said) as caught:
        transport.request("GET", LOOK, {}, None, Deadline(5))
    assert "VAULT_RATE_LIMIT" in worded(caught.value.hint)
    with pytest.raises(StoreBusyError, match=said):
        transport.once("GET", LOOK, {}, None, 5)
    assert client.slept == []


def test_a_token_is_stored_in_time_also_where_the_limit_separates_the_two_requests_for_it(kv2: World) -> None:
    # The burst is used up by the reads.
    settings = Settings.from_env(kv2.environ | {"VAULT_RATE_LIMIT": "0.75:5"})
    with connect(settings) as broker:
        exp = broker.get(settings.identity()).access.token.expires_at
    about = kv2.vault.metadata(kv2.mount, "klearstack/Acme/26/access")
    assert list(about["versions"]) == ["1"]
    deletion = parse_rfc3339(about["versions"]["1"]["deletion_time"])
    assert deletion is not None
    assert exp - 6 < deletion <= exp


def test_get_keeps_to_the_limits_of_the_environment(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        started = time.monotonic()
        kv2.get(VAULT_ADDR=proxy.address, VAULT_RATE_LIMIT="20:1", BAO_MAX_RETRIES="0")
        assert time.monotonic() - started > 0.05 * (len(proxy.requests) - 1)
        proxy.answer(lambda _: True, 503, when="before", times=99)
        before = len(proxy.requests)
        done = kv2.run("get", VAULT_ADDR=proxy.address, VAULT_MAX_RETRIES="0")
        assert (done.returncode, len(proxy.requests) - before) == (69, 2)  # the warm read, and the store's
    with dripping("header") as url:
        started = time.monotonic()
        done = kv2.run("get", VAULT_ADDR=url, VAULT_CLIENT_TIMEOUT="300ms", VAULT_MAX_RETRIES="0")
        assert (done.returncode, "no response in time" in done.stderr) == (69, True)
        assert time.monotonic() - started < 10 + SLACK  # of --timeout
