"""Time limits for calls that have none, such as name resolution or a lock on a network file system.

Each call runs in a daemon thread. A call that takes too long is abandoned with its thread, which ends with it. Until then
no other call of the same kind begins, so that at most as many threads are abandoned as called at the same time.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from vault_plugin.timing.deadline import Deadline

T = TypeVar("T")
_abandoned: dict[str, list[threading.Thread]] = {}


class _Worker:
    """A thread that is kept for the next call, since starting one takes longer than most calls."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="klearstack-blocking", daemon=True)
        self.thread.start()

    def call(self, task: Callable[[], Any], seconds: float) -> tuple[Any, BaseException | None]:
        """The result, or what was raised. Raises Empty if there is neither in time; `abandon` must follow then."""
        self._tasks.put(task)
        return self._results.get(timeout=seconds)

    def abandon(self, discard: Callable[[Any], object]) -> None:
        """Discard the late result, if there is one, and end the thread."""

        def clean_up() -> None:
            result, error = self._results.get()
            if error is None:
                discard(result)

        self._tasks.put(clean_up)
        self._tasks.put(None)

    def _work(self) -> None:
        # The main thread handles signals, also while this thread is abandoned: `exec` waits for them there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (task := self._tasks.get()) is not None:
            result: tuple[Any, BaseException | None]
            try:
                result = task(), None
            except BaseException as exc:  # noqa: BLE001  the caller raises it
                result = None, exc
            self._results.put(result)
            del task, result  # or an idle thread would keep them


_idle: list[_Worker] = []


def call(
    kind: str, task: Callable[[], T], seconds: float, discard: Callable[[T], object] = lambda _: None
) -> T:
    """Return what the task returns and raise what it raises. Raises TimeoutError if it takes longer than `seconds`.

    `discard` is called with a result that comes too late. `kind` names what may block, such as a host or a folder.
    """
    deadline = Deadline(seconds)
    _wait_for_others(kind, deadline)
    worker = _idle_worker() or _Worker()
    try:
        result, error = worker.call(task, deadline.left())
    except BaseException as exc:  # Empty, and what a signal handler raises
        worker.abandon(discard)
        _abandoned.setdefault(kind, []).append(worker.thread)
        if isinstance(exc, Empty):
            raise TimeoutError from None
        raise
    _idle.append(worker)
    if error is not None:
        raise error
    return cast(T, result)


def _wait_for_others(kind: str, deadline: Deadline) -> None:
    for thread in _abandoned.get(kind, [])[:]:
        thread.join(deadline.left())
        if thread.is_alive():
            raise TimeoutError
        with suppress(ValueError):  # another caller has removed it
            _abandoned[kind].remove(thread)


def _idle_worker() -> _Worker | None:
    while _idle:
        try:
            worker = _idle.pop()
        except IndexError:  # another thread has taken it
            break
        if worker.thread.is_alive():  # threads do not survive a fork
            return worker
    return None
