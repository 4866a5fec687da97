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
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from support.devices import device
from support.fakes import FakeClock

from vault_plugin.errors import BusyError, Failure, OutputError
from vault_plugin.locks import handle as lock_handle
from vault_plugin.locks.folder import LockFolder
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.deadline import Deadline

PATIENCE = 30  # seconds that a real wait may take before the test has failed

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


def is_busy(folder: Path, key: str) -> bool:
    try:
        with SingleFlight(str(folder)).lock(key, Deadline(0)):
            return False
    except BusyError:
        return True


def lock_file(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:3]


def neighbour(key: str) -> str:
    """Another key that lies in the same file."""
    return next(other for n in count() if lock_file(other := f"other {n}") == lock_file(key))


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


def test_the_first_holder_finds_no_memo(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        assert handle.memo is None


def test_a_memo_reaches_the_next_holder_and_all_after_it(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        handle.write_memo("a-rather-long-first-memo")
        handle.write_memo("index-7")
        assert handle.memo == "index-7"
    for _ in range(2):
        with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
            assert handle.memo == "index-7"


def test_a_memo_is_for_its_own_key_alone(folder: Path) -> None:
    locks = SingleFlight(str(folder))
    with locks.lock("key", Deadline(0)) as handle:
        handle.write_memo("index-7")
    with locks.lock(neighbour("key"), Deadline(0)) as handle:
        assert handle.memo is None
        handle.write_memo("index-8")
    with locks.lock("key", Deadline(0)) as handle:
        assert handle.memo is None


def test_two_keys_of_one_file_wait_for_each_other(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert is_busy(folder, neighbour("key"))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 3000, b"0" * 64, b"0" * 64 + b" a\nb"])
def test_a_file_without_a_memo_yields_none(folder: Path, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / lock_file("key")).write_bytes(content)
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        assert handle.memo is None


@pytest.mark.parametrize("memo", ["", "a b", "a\r\nX-Header: b", "\u00e9", "x" * 1025], ids=ascii)
def test_a_memo_that_could_not_be_a_header_is_not_passed_on(folder: Path, memo: str) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        handle.write_memo(memo)
        assert handle.memo is None


def test_neither_folder_nor_files_are_open_to_others(folder: Path) -> None:
    previous = os.umask(0)
    try:
        with SingleFlight(str(folder)).lock("key", Deadline(0)):
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / lock_file("key")).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(previous)


def test_no_key_is_readable_in_the_folder(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("CANARY", Deadline(0)) as handle:
        handle.write_memo("memo")
    (file,) = folder.iterdir()
    assert "CANARY" not in file.name + file.read_text()


def refused(folder: Path) -> str:
    with pytest.raises(OutputError) as caught, SingleFlight(str(folder)).lock("key", Deadline(0)):
        pytest.fail("a lock was acquired")
    assert "KLEARSTACK_LOCK_DIR" in caught.value.hint
    return str(caught.value)


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    assert "is not this user's own" in refused(folder)


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777, 0o1777])
def test_in_a_folder_that_others_may_write_to_a_private_one_is_created(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        (ours,) = folder.iterdir()
        assert ours.name == f"klearstack-vault-{os.getuid()}"
        assert ours.stat().st_mode & 0o777 == 0o700
        assert (ours / lock_file("key")).exists()
    assert folder.stat().st_mode & 0o7777 == mode


def test_a_shared_folder_of_another_user_will_do(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    folder.chmod(0o2777)  # as OpenShift's emptyDir
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert [one.stat().st_uid for one in folder.iterdir()] == [os.getuid()]


@pytest.mark.parametrize("kind", ["link", "file", "open", "another user's"])
def test_what_another_user_put_where_our_folder_should_be_is_refused(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    folder.mkdir()
    folder.chmod(0o1777)
    ours = folder / f"klearstack-vault-{os.getuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        ours.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        ours.touch()
    else:
        ours.mkdir(mode=0o700)
        if kind == "open":
            ours.chmod(0o777)
        else:
            os.chown(ours, 12345, 12345)
    assert "is not this user's own" in refused(folder)


def test_a_device_is_no_folder(tmp_path: Path) -> None:
    assert "is not this user's own" in refused(device(tmp_path, "null"))


def test_without_a_name_the_folder_is_the_first_of_the_temporary_ones_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setenv("TMP", str(tmp_path))
    with SingleFlight(None).lock("key", Deadline(0)):
        assert [one.name for one in tmp_path.iterdir()] == [f"klearstack-vault-{os.getuid()}"]


def test_where_no_temporary_folder_can_be_written_there_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LockFolder(None)
    folder._temporary = [tmp_path / "missing"]
    with pytest.raises(OSError, match="No such file"):
        folder.open("name")
    folder._temporary = [tmp_path]
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match="no temporary folder"):
        folder.open("name")


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


def test_a_folder_that_others_may_only_look_into_is_taken(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with SingleFlight(str(folder)).lock("key", Deadline(0)):
        assert list(folder.iterdir())


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    assert "is not this user's own" in refused(folder)
    assert not list(elsewhere.iterdir())


def test_a_link_in_place_of_the_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / lock_file("key")).symlink_to(tmp_path / "victim")
    assert refused(folder).startswith("No lock file can be created")
    assert not (tmp_path / "victim").exists()


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "locks"):
        assert refused(folder).startswith("No lock file can be created")


def test_a_folder_where_no_file_can_be_made_is_refused(folder: Path) -> None:
    (folder / lock_file("key")).mkdir(parents=True)
    folder.chmod(0o700)
    assert refused(folder).startswith("No lock file can be created")


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


# The endpoint's failure, from one holder to those who wait

DOWN = Failure("status", 503, 1.5)
LONG_AGO = 0.0


def leave(folder: Path, failure: Failure = DOWN, terms: str = "terms") -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        handle.write_failure(failure, terms)


def left(folder: Path, *, key: str = "key", terms: str = "terms", since: float = LONG_AGO) -> Failure | None:
    with SingleFlight(str(folder)).lock(key, Deadline(0)) as handle:
        found = handle.failure(terms, since)
        return found and found[0]


def test_a_failure_reaches_the_next_holders_with_how_long_ago_it_was(folder: Path) -> None:
    assert left(folder) is None
    before = time.monotonic()
    leave(folder)
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        found = handle.failure("terms", before)
    assert found
    assert found[0] == DOWN
    assert 0 <= found[1] <= time.monotonic() - before
    assert left(folder) == DOWN


def test_a_failure_is_shared_by_equal_callers_alone(folder: Path) -> None:
    leave(folder)
    assert left(folder, since=time.monotonic()) is None  # who has begun since then asks for itself
    assert left(folder, terms="another CA") is None
    assert left(folder, key=neighbour("key")) is None


def test_a_failure_before_the_last_boot_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(folder)
    other = folder.parent / "boot_id"
    other.write_text("00000000-0000-0000-0000-000000000000\n")
    monkeypatch.setattr(lock_handle, "BOOT_ID", other)
    assert left(folder) is None
    monkeypatch.setattr(lock_handle, "BOOT_ID", folder.parent / "nowhere")
    leave(folder)
    assert left(folder) is None  # without a boot id, monotonic time means nothing


def test_a_failure_in_the_future_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now + 3600)
        leave(folder)
    assert left(folder) is None


def test_memo_and_failure_stand_side_by_side_and_each_is_replaced_alone(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        handle.write_memo("index-1")
        handle.write_failure(DOWN, "terms")
        handle.write_memo("index-2")
        handle.write_failure(Failure("timeout"), "terms")
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        assert handle.memo == "index-2"
        assert (handle.failure("terms", LONG_AGO) or [None])[0] == Failure("timeout")
        handle.clear_failure()
        handle.clear_failure()
    assert left(folder) is None
    with SingleFlight(str(folder)).lock("key", Deadline(0)) as handle:
        assert handle.memo == "index-2"


def test_the_file_holds_facts_alone(folder: Path) -> None:
    leave(folder, terms="CANARY")
    (file,) = folder.iterdir()
    key, _, code, cause, number, retry_after, _, _ = file.read_text().split(" ")
    assert (code, cause, number, retry_after) == ("endpoint_unavailable", "status", "503", "1.500")
    assert key == sha256(b"key").hexdigest()
    assert "CANARY" not in file.read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b" status ", b" unheard_of "),
        (b" endpoint_unavailable ", b" endpoint_refused "),
        (b" 503 ", b" 5O3 "),
        (b" 1.500 ", b" -1.500 "),
    ],
)
def test_what_does_not_fit_together_is_no_failure(folder: Path, before: bytes, after: bytes) -> None:
    leave(folder)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    assert before in content
    file.write_bytes(content.replace(before, after))
    assert left(folder) is None
