"""Requests at the same time: each item once, no more threads than allowed, and an end when one fails or time is up."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.fakes import Slots
from support.waiting import until

from vault_plugin.bulk.parallel import Parallel
from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import StoreError, StoreRefusedError
from vault_plugin.timing.deadline import Deadline


class Counted(Slots):
    """Slots that count how many are taken at the same time."""

    def __init__(self) -> None:
        self.taken = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, stopping: threading.Event) -> Iterator[bool]:
        with self._lock:
            self.taken += 1
            self.most = max(self.most, self.taken)
        yield not stopping.is_set()
        with self._lock:
            self.taken -= 1


def parallel(slots: Slots | None = None, *, concurrency: int = 4, deadline: float | None = 60) -> Parallel:
    targets: Targets = slots or Slots()  # type: ignore[assignment]
    end = None if deadline is None else Deadline(deadline)
    return Parallel(targets, concurrency=concurrency, deadline=end)


@pytest.mark.parametrize("deadline", [None, 60])
def test_each_item_is_yielded_once_with_its_result(deadline: float | None) -> None:
    slots = Counted()
    found = list(parallel(slots, deadline=deadline).map(lambda number: number * 2, range(200)))
    assert sorted(found) == [(number, number * 2) for number in range(200)]
    assert 1 <= slots.most <= 4


def test_of_nothing_there_is_nothing() -> None:
    assert list(parallel().map(lambda _: 1, [])) == []


def test_the_first_failure_is_raised_and_nothing_more_begins() -> None:
    begun = []

    def call(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise StoreRefusedError("No.")
        return number

    with pytest.raises(StoreRefusedError):
        list(parallel(concurrency=1).map(call, range(1000)))
    assert begun == [0, 1, 2, 3]


def test_what_the_items_raise_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(parallel().map(lambda number: number, items()))


def test_it_ends_by_its_deadline_whatever_a_call_takes() -> None:
    go_on = threading.Event()
    begun: list[int] = []

    def call(number: int) -> None:
        begun.append(number)
        go_on.wait(60)

    with pytest.raises(StoreError, match="deadline"):
        list(parallel(concurrency=2, deadline=0.05).map(call, range(100)))
    before = threading.active_count()
    go_on.set()
    until(lambda: threading.active_count() <= before - 2)
    assert sorted(begun) == [0, 1]


def test_a_caller_that_stops_early_stops_the_threads() -> None:
    slots = Counted()
    begun: list[int] = []
    for _ in parallel(slots, concurrency=1).map(begun.append, iter(int, 1)):
        break
    until(lambda: not slots.taken)


def test_who_is_not_admitted_is_left_out() -> None:
    class Full(Slots):
        @contextmanager
        def slot(self, stopping: threading.Event) -> Iterator[bool]:
            stopping.set()
            yield False

    assert list(parallel(Full(), concurrency=1).map(lambda number: number, range(3))) == []
