"""`watch` as a service: what signals do, when the manifest is read anew, and what the service manager hears."""

import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any, Self

import pytest

from vault_plugin.bulk import service
from vault_plugin.bulk.service import Plan, run
from vault_plugin.errors import SettingsError
from vault_plugin.manifest.entries import Entry
from vault_plugin.manifest.formats import rewindable
from vault_plugin.tokens.identity import Identity

ENTRY = Entry(1, Identity("26", "Acme"), None)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class World:
    """A manifest, watchers and a service manager; each notes what happens, and may act at the moments named."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.loads = 0
        self.failure: Exception | None = None
        self.watchdog: float | None = None
        self.tried = threading.Event()
        self.tried.set()
        self.at: dict[str, list[Callable[[], object]]] = {}
        self.hangs = False
        self.status = "1 valid token, 0 cannot be renewed"

    def on(self, moment: str, *acts: Callable[[], object]) -> None:
        self.at[moment] = list(acts)

    def note(self, moment: str) -> None:
        self.log.append(moment)
        if self.at.get(moment):
            self.at[moment].pop(0)()

    def load(self) -> Plan:
        self.loads += 1
        self.note("load")
        if self.failure:
            raise self.failure
        return Plan([], [ENTRY] * self.loads)

    @contextmanager
    def connect_all(self, targets: object, manifest: str) -> Iterator[str]:
        self.log.append("connected")
        yield "targets"
        self.log.append("closed")

    def watcher_of(self, targets: object, entries: Sequence[Entry]) -> "World":
        assert targets == "targets"
        self.log.append(f"watching {len(entries)}")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("watched")

    # As Notifier

    def ready(self) -> None:
        self.note("ready")

    def reloading(self) -> None:
        self.note("reloading")

    def send_status(self, status: str, *, alive: bool) -> None:
        assert status == self.status
        self.note("alive" if alive else "hanging")

    def stopping(self) -> None:
        self.note("stopping")

    def run(self) -> signal.Signals:
        return run(self.load, self.watcher_of)  # type: ignore[arg-type]

    @property
    def said(self) -> list[object]:
        """Without what is said again and again."""
        return [one for one in self.log if one != "alive"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(service, "connect_all", world.connect_all)
    monkeypatch.setattr(service, "Notifier", lambda: world)
    monkeypatch.setattr(service, "SOON", 0.001)
    monkeypatch.setattr(service, "TICK", 0.002)
    return world


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(world: World, number: signal.Signals) -> None:
    world.on("ready", lambda: send(number))
    assert world.run() == number
    assert world.said == ["load", "connected", "watching 1", "ready", "stopping", "watched", "closed"]


def test_sighup_reads_the_manifest_anew(world: World) -> None:
    world.on("ready", lambda: send(signal.SIGHUP), lambda: send(signal.SIGTERM))
    assert world.run() == signal.SIGTERM
    one, two = (
        ["connected", "watching 1", "ready"],
        ["connected", "watching 2", "ready", "stopping", "watched", "closed"],
    )
    assert world.said == ["load", *one, "reloading", "load", "watched", "closed", *two]


def test_a_manifest_that_will_not_do_leaves_the_old_one_in_force_and_the_service_is_ready_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil() -> None:
        world.failure = SettingsError("It was changed.", hint="Run again.")
        send(signal.SIGHUP)

    world.on("ready", spoil, lambda: send(signal.SIGTERM))
    world.run()
    assert world.said == [
        *["load", "connected", "watching 1", "ready"],
        *["reloading", "load", "ready", "stopping", "watched", "closed"],
    ]
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "It was changed. Run again. The previous manifest remains in use."


def test_a_manifest_that_will_not_do_at_the_start_ends_it(world: World) -> None:
    world.failure = SettingsError("no")
    with pytest.raises(SettingsError):
        world.run()
    assert world.log == ["load"]


def test_a_signal_that_comes_while_the_manifest_is_read_is_not_lost(world: World) -> None:
    world.on("load", lambda: send(signal.SIGTERM))
    assert world.run() == signal.SIGTERM
    assert "ready" not in world.log


def test_signals_are_heeded_in_their_order_and_nothing_is_loaded_before_the_end(world: World) -> None:
    def both() -> None:
        send(signal.SIGHUP)
        send(signal.SIGTERM)
        send(signal.SIGINT)

    world.on("ready", both)
    assert world.run() == signal.SIGTERM
    assert world.said[2:] == ["watching 1", "ready", "reloading", "stopping", "watched", "closed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("reloads", [False, True])
def test_a_manifest_that_never_ends_keeps_no_signal_from_ending_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, reloads: bool
) -> None:
    fifo, reads, ended = tmp_path / "m.yaml", threading.Event(), threading.Event()
    os.mkfifo(fifo)

    def polled() -> Any:
        reads.set()
        return select.poll()

    def write() -> None:
        with fifo.open("w"):
            assert reads.wait(60)
            for _ in range(100):
                send(number)  # a signal that arrives just before the system call does not interrupt it
                if ended.wait(0.05):
                    break

    def read() -> None:
        writer.start()
        try:
            with rewindable(str(fifo)):
                pytest.fail("the signal did not end it")
        finally:
            ended.set()
            writer.join()

    monkeypatch.setattr("vault_plugin.output.streams.poll", polled)
    writer = threading.Thread(target=write)
    world.on("load", *[lambda: None] * reloads, read)
    world.on("ready", lambda: send(signal.SIGHUP))
    assert world.run() == number
    rest = ["connected", "watching 1", "ready", "reloading", "load", "stopping", "watched", "closed"]
    assert world.said == ["load", *(rest if reloads else [])]


def test_signals_mean_what_they_meant_before_and_also_after_a_failure(world: World) -> None:
    def mine(*_: object) -> None:
        pytest.fail("it came too late")

    before = {
        number: signal.signal(number, mine) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    }
    try:
        world.on("ready", lambda: send(signal.SIGTERM))
        world.run()
        world.failure = SettingsError("no")
        with pytest.raises(SettingsError):
            world.run()
        assert {signal.getsignal(number) for number in before} == {mine}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_it_is_ready_when_all_have_been_tried_and_alive_before(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vault_plugin")
    world.tried.clear()
    world.on("alive", *[lambda: None] * 5, world.tried.set)
    world.on("ready", lambda: send(signal.SIGTERM))
    world.run()
    assert world.log[3:10] == ["alive"] * 6 + ["ready"]
    assert [record.getMessage() for record in caplog.records] == [world.status]


def test_it_is_ready_once_and_alive_again_and_again(world: World) -> None:
    world.on("alive", *[lambda: None] * 5, lambda: send(signal.SIGTERM))
    world.run()
    assert world.log.count("ready") == 1
    assert world.log.count("alive") == 6


def test_while_a_worker_hangs_the_watchdog_is_not_fed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def hang(hangs: bool) -> Callable[[], None]:
        return lambda: setattr(world, "hangs", hangs)

    world.on("alive", hang(hangs=True), lambda: send(signal.SIGTERM))
    world.on("hanging", lambda: None, hang(hangs=False))
    world.run()
    assert [one for one in world.log if one in {"alive", "hanging"}] == [
        "alive",
        "hanging",
        "hanging",
        "alive",
    ]
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "exceeds its deadline" in error.getMessage()


class FakeQueue:
    """A queue of signals in which nothing comes, but for the last; how long it was waited for is noted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waits: list[float] = []

    def get(self, timeout: float) -> signal.Signals:
        self.waits.append(timeout)
        if len(self.waits) < self.count:
            raise Empty
        return signal.SIGTERM


@pytest.mark.parametrize(
    ("watchdog", "waits"),
    [(None, [0.1, 10, 10]), (3.0, [0.1, 3, 3]), (0.05, [0.05, 0.05, 0.05]), (60.0, [0.1, 10, 10])],
)
def test_how_often_it_is_alive_goes_by_the_watchdog(watchdog: float | None, waits: list[float]) -> None:
    world, queue = World(), FakeQueue(3)
    world.watchdog = watchdog
    arguments: Any = (queue, world, world)
    assert service._wait(*arguments) == signal.SIGTERM
    assert queue.waits == waits


def test_until_all_have_been_tried_it_looks_often() -> None:
    world, queue = World(), FakeQueue(4)
    world.tried.clear()
    world.on("alive", lambda: None, world.tried.set)
    arguments: Any = (queue, world, world)
    service._wait(*arguments)
    assert queue.waits == [0.1, 0.1, 10, 10]
