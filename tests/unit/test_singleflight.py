"""One caller per key, by the kernel's own lock: among threads, among processes, and after a SIGKILL."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fakes import FakeClock
from support.locks import PATIENCE, is_busy, lock_file, neighbour, refused

from vault_plugin.errors import BusyError, OutputError
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.deadline import Deadline

HOLDER = """
import sys, time
from vault_plugin.timing.deadline import Deadline
from vault_plugin.locks.singleflight import SingleFlight

with SingleFlight(sys.argv[1]).lock("key", Deadline(30)) as handle:
    handle.write_memo("left-by-holder")
    print("held", flush=True)
    time.sleep(600)
"""


WAITER = """
import sys, time
from vault_plugin.timing.deadline import Deadline
from vault_plugin.locks.singleflight import SingleFlight

def sleep(seconds):
    print("waiting", flush=True)
    time.sleep(seconds)

with SingleFlight(sys.argv[1], sleep).lock("key", Deadline(30)) as handle:
    print("in", handle.memo, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@contextmanager
def process(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_only_one_thread_at_a_time_holds_the_lock(folder: Path) -> None:
    locks = SingleFlight(str(folder))
    inside: list[int] = []
    crowds: list[int] = []

    def work(number: int) -> None:
        with locks.lock("key", Deadline(PATIENCE)):
            inside.append(number)
            time.sleep(0.01)  # long enough for any other to come in if it could
            crowds.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowds == [1] * 8


def test_the_lock_is_released_after_the_block(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert is_busy(folder, "key")
    assert not is_busy(folder, "key")


def test_the_lock_is_released_after_an_exception(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), SingleFlight(str(folder)).lock("key", Deadline(0)):
        raise ZeroDivisionError
    assert not is_busy(folder, "key")


def test_other_keys_do_not_wait(folder: Path) -> None:
    assert lock_file("key") != lock_file("other")
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert not is_busy(folder, "other")


def test_another_process_waits_and_gets_in_when_the_holder_is_killed(folder: Path) -> None:
    with process(HOLDER, folder) as holder:
        assert line(holder) == "held"
        with process(WAITER, folder) as waiter:
            assert line(waiter) == "waiting"
            assert is_busy(folder, "key")
            holder.send_signal(signal.SIGKILL)
            said = [line(waiter)]
            while said[-1] == "waiting":
                said.append(line(waiter))
            assert said[-1] == "in left-by-holder"
            assert waiter.wait(PATIENCE) == 0


def test_a_wait_ends_with_the_deadline(folder: Path) -> None:
    clock = FakeClock(0.0)
    locks = SingleFlight(str(folder), clock.sleep)
    with locks.lock("key", Deadline(0)):
        with pytest.raises(BusyError) as caught, locks.lock("key", Deadline(5, clock.now)):
            pytest.fail("two held the same lock")
        assert 4 < clock.time <= 5
        assert len(clock.slept) > 40  # it asked often: nobody waits much longer than the holder holds
        assert caught.value.retryable


def test_a_wait_ends_soon_after_the_release(folder: Path) -> None:
    clock = FakeClock(0.0)
    holding = SingleFlight(str(folder)).lock("key", Deadline(0))

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 20:
            holding.__exit__(None, None, None)

    holding.__enter__()
    with SingleFlight(str(folder), sleep).lock("key", Deadline(PATIENCE, clock.now)):
        assert len(clock.slept) == 20


def test_two_keys_of_one_file_wait_for_each_other(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert is_busy(folder, neighbour("key"))


def test_a_lock_file_must_be_regular(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / lock_file("key"))
    assert "not a regular file" in refused(folder)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT])
def test_without_locks_the_handle_says_so_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        assert isinstance(handle.unlocked, OutputError)
        assert str(folder) in str(handle.unlocked)
        assert (handle.memo, handle.waited) == (None, False)
        handle.write_memo("memo")
    assert (folder / lock_file("key")).read_bytes() == b""


def test_any_other_failure_to_lock_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert refused(folder).startswith("No lock file can be created")


def test_a_folder_that_is_full_costs_nothing_that_was_minted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def full(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with SingleFlight(str(folder)).lock("key", Deadline(PATIENCE)) as handle:
        monkeypatch.setattr(os, "ftruncate", lambda *_: full(os.dup(0)))
        handle.write_memo("memo")
        monkeypatch.setattr(os, "close", full)
    monkeypatch.undo()
    assert not is_busy(folder, "key")


def test_a_caller_that_finds_the_lock_free_has_not_waited(folder: Path) -> None:
    for _ in range(2):
        with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
            assert not handle.waited


def test_a_caller_that_finds_the_lock_held_has_waited(folder: Path) -> None:
    clock = FakeClock(0.0)
    holding = SingleFlight(str(folder)).lock("key", Deadline(0))
    holding.__enter__()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 1:
            holding.__exit__(None, None, None)

    with SingleFlight(str(folder), sleep).lock("key", Deadline(PATIENCE, clock.now)) as handle:
        assert handle.waited
