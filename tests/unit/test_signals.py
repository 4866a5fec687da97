"""Signal handlers are installed for a block and restored after it."""

import signal
import threading

import pytest

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
