"""Calls that no timeout ends: what becomes of them, and of their threads."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vault_plugin.timing import blocking

PATIENCE = 30  # seconds that a real wait may take before the test has failed
SHORT = 0.02


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What those that hang wait for; at the end all of their threads are gone."""
    event = threading.Event()
    yield event
    event.set()
    for threads in blocking._abandoned.values():
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def hang(released: threading.Event) -> Callable[[], str]:
    def task() -> str:
        assert released.wait(PATIENCE)
        return "late"

    return task


def raise_(error: BaseException) -> None:
    raise error


def test_what_is_in_time_is_returned_or_raised() -> None:
    assert blocking.call("a", lambda: 7, PATIENCE) == 7
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        blocking.call("a", lambda: raise_(error), PATIENCE)
    assert caught.value is error


def test_a_thread_serves_one_call_after_the_other_with_all_signals_blocked() -> None:
    seen = {
        blocking.call(
            "a", lambda: (threading.get_ident(), frozenset(signal.pthread_sigmask(0, ()))), PATIENCE
        )
        for _ in range(5)
    }
    ((_, blocked),) = seen
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD} <= blocked


def test_what_takes_too_long_is_abandoned_and_its_late_result_discarded(released: threading.Event) -> None:
    discarded: list[str] = []
    done = threading.Event()

    def discard(late: str) -> None:
        discarded.append(late)
        done.set()

    with pytest.raises(TimeoutError):
        blocking.call("slow", hang(released), SHORT, discard)
    assert blocking.call("other", lambda: 7, PATIENCE) == 7
    released.set()
    assert done.wait(PATIENCE)
    assert discarded == ["late"]


def test_a_late_failure_is_nobodys(released: threading.Event) -> None:
    def fail() -> None:
        hang(released)()
        raise ZeroDivisionError

    with pytest.raises(TimeoutError):
        blocking.call("slow", fail, SHORT, discard=lambda _: pytest.fail("there is nothing to discard"))
    released.set()
    assert blocking.call("slow", lambda: 7, PATIENCE) == 7  # waits for the thread that was left behind


def test_of_one_kind_no_other_begins_while_one_is_abandoned(released: threading.Event) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            blocking.call("slow", hang(released), SHORT)
    assert len(blocking._abandoned["slow"]) == 1
    released.set()
    assert blocking.call("slow", lambda: 7, PATIENCE) == 7
    assert blocking._abandoned["slow"] == []


def test_what_interrupts_the_wait_leaves_the_call_behind_too(released: threading.Event) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        # Long enough for the wait to have begun: a signal just before it would be seen after it.
        signal.setitimer(signal.ITIMER_REAL, 10 * SHORT)
        with pytest.raises(Interrupted):
            blocking.call("slow", hang(released), PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(blocking._abandoned["slow"]) == 1


def test_a_fork_does_not_wait_for_threads_that_it_has_not() -> None:
    assert blocking.call("a", lambda: 7, PATIENCE) == 7  # whose thread is idle now
    with pytest.raises(TimeoutError):
        blocking.call("forked", lambda: time.sleep(SHORT * 10), SHORT)
    child = os.fork()
    if not child:  # pragma: no cover  coverage is not saved there
        os._exit(blocking.call("forked", lambda: 7, PATIENCE))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
