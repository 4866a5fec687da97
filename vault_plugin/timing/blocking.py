"""Calls that no timeout ends, such as name resolution or a lock on a network file system, with a bound nevertheless.

Each runs in a daemon thread. One that takes too long is left behind with its thread, which ends with it. Until then no
other call of the same kind begins, so that at most as many threads are left behind as once called at the same time.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from vault_plugin.timing.deadline import Deadline

T = TypeVar("T")
_left_behind: dict[str, list[threading.Thread]] = {}


class _Worker:
    """A thread that is kept for the next call: to start one takes longer than most calls do."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="klearstack-blocking", daemon=True)
        self.thread.start()

    def call(self, task: Callable[[], Any], seconds: float) -> tuple[Any, BaseException | None]:
        """The result, or what was raised. Raises Empty if there is neither in time; `leave` must follow then."""
        self._tasks.put(task)
        return self._results.get(timeout=seconds)

    def leave(self, discard: Callable[[Any], object]) -> None:
        """Have the late result discarded, if one comes, and the thread end."""

        def clean_up() -> None:
            result, error = self._results.get()
            if error is None:
                discard(result)

        self._tasks.put(clean_up)
        self._tasks.put(None)

    def _work(self) -> None:
        # Signals belong to the main thread, also while this one is left behind: `exec` waits for them there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (task := self._tasks.get()) is not None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = task(), None
            except BaseException as exc:  # noqa: BLE001  it is raised where it belongs
                outcome = None, exc
            self._results.put(outcome)
            del task, outcome  # or an idle thread would keep them


_idle: list[_Worker] = []


def call(
    kind: str, task: Callable[[], T], seconds: float, discard: Callable[[T], object] = lambda _: None
) -> T:
    """Return what the task returns, and raise what it raises; TimeoutError if it takes longer than `seconds`.

    `discard` gets a result that comes too late. `kind` names what is waited for, such as a host or a folder.
    """
    deadline = Deadline(seconds)
    _wait_for_others(kind, deadline)
    worker = _idle_worker() or _Worker()
    try:
        result, error = worker.call(task, deadline.left())
    except BaseException as exc:  # Empty, and what a signal handler raises
        worker.leave(discard)
        _left_behind.setdefault(kind, []).append(worker.thread)
        if isinstance(exc, Empty):
            raise TimeoutError from None
        raise
    _idle.append(worker)
    if error is not None:
        raise error
    return cast(T, result)


def _wait_for_others(kind: str, deadline: Deadline) -> None:
    for thread in _left_behind.get(kind, [])[:]:
        thread.join(deadline.left())
        if thread.is_alive():
            raise TimeoutError
        with suppress(ValueError):  # another caller was faster
            _left_behind[kind].remove(thread)


def _idle_worker() -> _Worker | None:
    while _idle:
        try:
            worker = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if worker.thread.is_alive():  # a fork leaves threads behind
            return worker
    return None
