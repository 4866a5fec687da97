"""Requests about many places in Vault at the same time, as many as its rate limit quota leaves room for."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.wording import named

T = TypeVar("T")
R = TypeVar("R")


class Parallel:
    """Calls a function for many items, on `concurrency` threads at most, until the deadline."""

    def __init__(self, targets: Targets, *, concurrency: int, deadline: Deadline | None) -> None:
        self._targets = targets
        self._concurrency = concurrency
        self._deadline = deadline

    def map(self, call: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Yield each item with its result, in the order in which they are ready.

        Raises the first exception of a call, and StoreError when the deadline passes; no further call begins then.
        """
        run = _Run(self._targets, call, iter(items))
        threads = [threading.Thread(target=run.work, daemon=True) for _ in range(self._concurrency)]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                while (found := self._next(run)) is not None:
                    yield found
        finally:
            run.stopping.set()

    def _next(self, run: "_Run[T, R]") -> tuple[T, R] | None:
        try:
            found = run.results.get(timeout=None if self._deadline is None else self._deadline.left())
        except Empty:
            raise StoreError(
                "The deadline passed before Vault had responded to all requests.",
                hint=f"Allow more time with {named('deadline')}.",
            ) from None
        if isinstance(found, BaseException):
            raise found
        return found


class _Run(Generic[T, R]):
    """One run: `results` has a pair for each item, an exception for each thread that failed, and None for each one that ended."""

    def __init__(self, targets: Targets, call: Callable[[T], R], items: Iterator[T]) -> None:
        self.results: SimpleQueue[tuple[T, R] | BaseException | None] = SimpleQueue()
        self.stopping = threading.Event()
        self._targets = targets
        self._call = call
        self._items = items
        self._lock = threading.Lock()

    def work(self) -> None:
        """Call the function for one item after another."""
        try:
            while not self.stopping.is_set():
                with self._lock:  # one thread at a time may use an iterator
                    item = next(self._items)
                with self._targets.slot(self.stopping) as admitted:
                    if admitted:
                        self.results.put((item, self._call(item)))
        except StopIteration:
            pass
        except BaseException as exc:  # noqa: BLE001  `map` raises it
            self.results.put(exc)
        self.results.put(None)
