"""Many callers of one identity while a side is down: it is asked by one of them, and all of them say why they failed."""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Barrier, Event

import pytest
from support.cli import World, start
from support.fault_proxy import FaultProxy
from support.waiting import until

from vault_plugin.app import connect
from vault_plugin.broker import Broker, Grant
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.locks.handle import LockHandle
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline

CALLERS = 8
PATIENCE = 60  # seconds that a real wait may take before the test has failed


def herd(
    world: World, environ: Mapping[str, str], *, callers: int = CALLERS, renew: bool = False
) -> list[Grant | KlearstackVaultError]:
    """What so many callers get who begin at the same time, with nothing in common but the host.

    The endpoint answers none before all of them are at the lock.
    """
    settings = Settings.from_env({**world.environ, **environ})
    begun, arrived = Barrier(callers), SimpleQueue[str]()

    @contextmanager
    def lock(self: SingleFlight, key: str, deadline: Deadline) -> Iterator[LockHandle]:
        arrived.put(key)
        with take_lock(self, key, deadline) as handle:
            yield handle

    def call(_: int) -> Grant | KlearstackVaultError:
        with connect(settings) as broker:
            _load(broker)
            begun.wait(PATIENCE)
            try:
                return broker.get(settings.identity(), renew=renew)
            except KlearstackVaultError as exc:
                return exc

    world.answer_when(lambda: arrived.qsize() >= callers)
    take_lock = SingleFlight.lock
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(callers) as pool:
        patch.setattr(SingleFlight, "lock", lock)
        return list(pool.map(call, range(callers)))


def _load(broker: Broker) -> None:
    """Import what the first call would import: threads import one after the other."""
    broker._store()
    broker._source()


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("401", 77, "rejected the request (status 401)"),
        ("html", 76, "is not JSON"),
        ("parameter-missing", 78, "reports a missing parameter: company_name"),
    ],
)
def test_waiters_take_over_the_failure_of_the_one_that_asked(
    kv2: World, fault: str, code: int, message: str
) -> None:
    kv2.endpoint.fault = fault
    done = herd(kv2, {})
    assert [one.exit_code for one in done if isinstance(one, KlearstackVaultError)] == [code] * CALLERS
    assert all(message in str(one) for one in done)
    assert kv2.endpoint.requests == 1


@pytest.mark.parametrize(
    ("fault", "message", "own"),
    [
        ("503", "responded with status 503", {"KLEARSTACK_DEADLINE": "4"}),
        ("hang", "did not respond in time", {"KLEARSTACK_DEADLINE": "6", "KLEARSTACK_TIMEOUT": "1"}),
        ("hang", "did not respond in time", {"KLEARSTACK_DEADLINE": "6"}),  # which is less than the timeout
    ],
)
def test_waiters_for_an_endpoint_that_is_down_cost_no_more_than_the_one_that_asks(
    kv2: World, fault: str, message: str, own: dict[str, str]
) -> None:
    kv2.endpoint.fault = fault
    done = herd(kv2, own)
    assert all(message in str(one) for one in done)
    assert [one.retryable for one in done if isinstance(one, KlearstackVaultError)] == [True] * CALLERS
    assert kv2.endpoint.requests <= 8  # those of one caller


def test_who_has_a_valid_token_stored_falls_back_to_it_after_the_shared_failure(
    kv2: World, caplog: pytest.LogCaptureFixture
) -> None:
    kv2.get()
    kv2.endpoint.requests = 0
    kv2.endpoint.fault = "503"
    done = herd(kv2, {}, renew=True)
    assert [one.stale for one in done if isinstance(one, Grant)] == [True] * CALLERS
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert ["responded with status 503" in text for text in said] == [True] * CALLERS
    assert 1 < kv2.endpoint.requests <= 4


def test_processes_share_it_too(kv2: World) -> None:
    kv2.endpoint.fault = "401"
    with FaultProxy(kv2.vault.address) as proxy:
        kv2.answer_when(lambda: proxy.connections() >= 3)  # each process has begun
        environ = kv2.environ | {"VAULT_ADDR": proxy.address, "KLEARSTACK_TIMEOUT": str(PATIENCE)}
        children = [start("get", environ=environ, stdout=-1, stderr=-1) for _ in range(3)]
        said = [child.communicate(timeout=PATIENCE)[1] for child in children]
    assert [child.returncode for child in children] == [77] * 3
    assert len(set(said)) == 1
    assert kv2.endpoint.requests == 1


def longest(base: float, cap: float) -> Iterator[float]:
    """The pauses that are the longest: as many tries each time."""
    while True:
        yield base
        base = min(cap, 2 * base)


def test_vault_down_is_asked_again_and_again_by_one_caller_alone(
    kv2: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_plugin.vault.retries.full_jitter", longest)

    def requests(callers: int) -> int:
        with FaultProxy(kv2.vault.address) as proxy:
            own = {"VAULT_ADDR": proxy.address, "KLEARSTACK_DEADLINE": "4"}
            proxy.answer(lambda _: True, 500, when="before", times=10**9)
            done = herd(kv2, own, callers=callers)
            assert all("status 500" in str(one) for one in done)
            return len(proxy.requests)

    one = requests(1)
    assert requests(CALLERS) <= one + 2 * (CALLERS - 1)  # a look before the lock, and one with it
    assert kv2.endpoint.requests == 0


def test_a_vault_that_does_not_respond_is_waited_for_by_one_caller_alone(kv2: World) -> None:
    def requests(callers: int) -> int:
        go_on = Event()
        with FaultProxy(kv2.vault.address) as proxy:
            own = {"VAULT_ADDR": proxy.address, "KLEARSTACK_DEADLINE": "2", "KLEARSTACK_TIMEOUT": "0.5"}
            proxy.before(lambda _: True, lambda: go_on.wait(PATIENCE), times=10**9)
            try:
                done = herd(kv2, own, callers=callers)
                count = len(proxy.requests)
            finally:
                go_on.set()
            assert all("no response in time" in str(one) or "deadline passed" in str(one) for one in done)
            return count

    one = requests(1)
    # As above. Instead of the second look there is one without the lock where the time for that is over.
    assert requests(CALLERS) <= one + 2 * (CALLERS - 1)
    assert kv2.endpoint.requests == 0


def test_a_caller_with_more_time_does_not_end_by_the_deadline_of_another(kv2: World) -> None:
    kv2.endpoint.fault, kv2.endpoint.fault_count = "hang", 1
    short, long = (
        Settings.from_env(kv2.environ | {"KLEARSTACK_DEADLINE": seconds}) for seconds in ("1", "30")
    )
    with connect(short) as first, connect(long) as second, ThreadPoolExecutor(2) as pool:
        get: list[Callable[[], Grant]] = [
            lambda: first.get(short.identity()),
            lambda: second.get(long.identity()),
        ]
        _load(first)
        _load(second)
        hanging = pool.submit(get[0])
        until(lambda: kv2.endpoint.requests)
        waiting = pool.submit(get[1])
        assert isinstance(hanging.exception(PATIENCE), KlearstackVaultError)
        assert waiting.result(PATIENCE).source == "endpoint"
