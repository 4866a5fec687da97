"""What a slow, throttling or failing Vault does to a token's end in Vault, with the figures promised; minutes in all."""

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.waiting import until

from vault_plugin.timing.clock import parse_rfc3339

ACCESS = "klearstack/Acme/26/access"
REFRESH = "klearstack/Acme/26/refresh"


def early(world: World, path: str) -> float:
    """How many seconds before its JWT's end Vault will delete what lies there."""
    data = world.vault.read(world.mount, path)
    assert data is not None
    deletion = parse_rfc3339(world.vault.newest(world.mount, path)["deletion_time"]) or 0
    return (parse_rfc3339(data["expires_at"]) or 0) - deletion


def posts(proxy: FaultProxy) -> list[str]:
    return [line for line in proxy.requests if line.startswith("POST")]


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.0, 1.2, 1.5, 2.0])
def test_with_a_steadily_slow_vault_a_cold_get_stores_both_on_time(kv2: World, seconds: float) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay(lambda _: True, seconds)
        answer = kv2.get(VAULT_ADDR=proxy.address)
        assert len(posts(proxy)) <= 6
        assert answer["source"] == "endpoint"
    allowed = 3 + (seconds + 0.1 if seconds > 0.9 else 0)
    for path in (ACCESS, REFRESH):
        assert 0 <= early(kv2, path) <= allowed


@pytest.mark.parametrize("seconds", [1.5, 2.0])
def test_with_answers_that_are_slow_on_their_way_back_a_cold_get_stores_both_on_time(
    kv2: World, seconds: float
) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay_answers(lambda _: True, seconds)
        kv2.get(VAULT_ADDR=proxy.address)
        assert len(posts(proxy)) <= 6
    for path in (ACCESS, REFRESH):
        assert 0 <= early(kv2, path) <= 3.1 + seconds


def test_with_slow_writes_and_quick_reads_a_cold_get_stores_both_on_time(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay(lambda line: line.startswith("POST"), 1.5)
        kv2.get(VAULT_ADDR=proxy.address)
        assert len(posts(proxy)) <= 6
    for path in (ACCESS, REFRESH):
        assert 0 <= early(kv2, path) <= 3 + 1.6


@pytest.mark.parametrize("path", [ACCESS, REFRESH])
@pytest.mark.parametrize("part", ["data", "metadata"])
def test_a_write_held_for_8_seconds_is_on_time_at_the_end_of_the_call(
    kv2: World, path: str, part: str
) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay(lambda line: line.startswith(f"POST /v1/{kv2.mount}/{part}/{path}"), 8, times=1)
        kv2.get(VAULT_ADDR=proxy.address)
        assert proxy.all_happened()
    for one in (ACCESS, REFRESH):
        assert 0 <= early(kv2, one) <= 3 + 8.1


def test_a_write_held_beyond_the_timeout_is_on_time_at_the_end_of_the_call(kv2: World) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        proxy.delay(lambda line: line.startswith(f"POST /v1/{kv2.mount}/data/{ACCESS}"), 8, times=1)
        kv2.get("--timeout", "4", VAULT_ADDR=proxy.address)
        assert 0 <= early(kv2, ACCESS) <= 3 + 8.1
        time.sleep(5)  # the one that was given up has arrived by now
    assert 0 <= early(kv2, ACCESS) <= 3 + 8.1
    assert kv2.endpoint.mints == 1


@pytest.mark.parametrize("path", [ACCESS, REFRESH])
def test_a_write_held_for_8_seconds_whose_process_was_killed_is_corrected_by_the_next_call(
    kv2: World, path: str
) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        environ = kv2.environ | {"VAULT_ADDR": proxy.address}
        with proxy.hold(lambda line: line.startswith(f"POST /v1/{kv2.mount}/data/{path}")) as arrived:
            process = subprocess.Popen([*COMMAND, "get"], env=environ, stdout=subprocess.PIPE)
            assert arrived.wait(30)
            time.sleep(8)
            process.kill()
            process.communicate()
        until(lambda: kv2.vault.metadata(kv2.mount, path)["current_version"])
    assert early(kv2, path) < 0
    kv2.get()
    for one in (ACCESS, REFRESH):
        assert 0 <= early(kv2, one) <= 3


def everything(_: str) -> bool:
    return True


def writes(line: str) -> bool:
    return line.startswith("POST")


def data(line: str) -> bool:
    return line.startswith("POST") and "/data/" in line


@pytest.mark.parametrize("matches", [everything, writes, data])
@pytest.mark.parametrize("retry_after", [0, 1, None])
def test_no_version_is_late_after_429_for_10_seconds(
    kv2: World, matches: Callable[[str], bool], retry_after: int | None
) -> None:
    with FaultProxy(kv2.vault.address) as proxy:
        end = time.monotonic() + 10
        proxy.answer(
            lambda line: matches(line) and time.monotonic() < end,
            429,
            when="before",
            times=10**6,
            retry_after=retry_after,
        )
        done = kv2.run("get", "--format", "json", VAULT_ADDR=proxy.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["vault"]["version"] == 1
    for one in (ACCESS, REFRESH):
        assert 0 <= early(kv2, one) <= 3 + 11


def test_a_token_of_12_seconds_is_not_served_after_20_although_the_endpoints_clock_is_ahead(
    kv2: World,
) -> None:
    kv2.endpoint.ahead, kv2.endpoint.access_ttl = 3600, 12
    first = kv2.run("get").stdout
    for _ in range(20):
        time.sleep(1)
        done = kv2.run("get", "--format", "json", "--min-ttl", "0")
        if f"{json.loads(done.stdout)['access_token']}\n" != first:
            break
        assert 0 < json.loads(done.stdout)["expires_in"] <= 12
    else:
        pytest.fail("it is still served")
