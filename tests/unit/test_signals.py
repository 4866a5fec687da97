"""Signal handlers are installed for a block and restored after it."""

import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from vault_plugin.bulk import service
from vault_plugin.commands import sync
from vault_plugin.demo import tour
from vault_plugin.signals import STOP, handled


def test_signals_reach_the_handler_inside_the_block_and_the_previous_one_after_it() -> None:
    outer: list[int] = []
    inner: list[int] = []
    with handled(STOP, lambda number, _: outer.append(number)):
        with handled([signal.SIGHUP, signal.SIGTERM], lambda number, _: inner.append(number)):
            for number in STOP:
                signal.raise_signal(number)
        assert (outer, inner) == ([signal.SIGINT], [signal.SIGHUP, signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)
    assert outer == [signal.SIGINT, signal.SIGTERM]


def test_the_previous_handlers_are_restored_after_an_exception() -> None:
    before = [signal.getsignal(number) for number in STOP]
    with pytest.raises(ZeroDivisionError), handled(STOP, print):
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in STOP] == before


def test_another_thread_cannot_handle_signals() -> None:
    raised: list[Exception] = []

    def enter() -> None:
        try:
            handled(STOP, print).__enter__()
        except ValueError as exc:
            raised.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(raised) == 1


@pytest.fixture
def hang_ups_ignored() -> Iterator[None]:
    """As `nohup` starts a process."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_ups_ignored")
def test_a_signal_that_is_ignored_stays_ignored_unless_it_has_to_be_handled() -> None:
    received: list[int] = []
    with handled(STOP, lambda number, _: received.append(number)):
        for number in STOP:
            signal.raise_signal(number)
    assert received == [signal.SIGINT, signal.SIGTERM]
    with handled([signal.SIGHUP], lambda number, _: received.append(number), ignored_too=True):
        signal.raise_signal(signal.SIGHUP)
    assert received[2:] == [signal.SIGHUP]


class Run:
    """A run of `sync` that notes what stops it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def stop(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.mark.usefixtures("hang_ups_ignored")
def test_a_hang_up_does_not_stop_a_run_of_sync_under_nohup_nor_end_it_once_it_stops() -> None:
    run = Run()
    with sync._stopped_by_signals(run) as caught:  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGHUP)
        assert caught == []
        signal.raise_signal(signal.SIGTERM)
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert handlers == [signal.SIG_DFL, signal.SIG_IGN]
    assert (caught, run.reasons) == ([signal.SIGTERM], ["SIGTERM"])


@pytest.mark.usefixtures("hang_ups_ignored")
def test_a_hang_up_reloads_the_manifest_of_watch_also_under_nohup() -> None:
    with service._signals() as signals:
        signal.raise_signal(signal.SIGHUP)
    assert [signals.queue.get_nowait()] == [signal.SIGHUP]
    assert signals.queue.empty()


@pytest.mark.usefixtures("hang_ups_ignored")
def test_a_hang_up_does_not_end_the_demo_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    survived: list[int] = []

    def folder(_: str) -> NoReturn:
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
            survived.append(number)
        pytest.fail("SIGTERM does not end it")

    monkeypatch.setattr(tour, "temporary_folder", folder)
    with pytest.raises(KeyboardInterrupt):
        tour.run(print)
    assert survived == [signal.SIGHUP]
