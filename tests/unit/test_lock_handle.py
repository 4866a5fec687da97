"""What the holder of a lock leaves for the next holders."""

import time
from hashlib import sha256
from pathlib import Path

import pytest
from support.locks import lock_file, neighbour

from vault_plugin.errors import Failure
from vault_plugin.locks import handle as lock_handle
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.backoff import MAX_RETRY_AFTER
from vault_plugin.timing.deadline import Deadline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


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


def test_no_key_is_readable_in_the_folder(folder: Path) -> None:
    with SingleFlight(str(folder)).lock("CANARY", Deadline(0)) as handle:
        handle.write_memo("memo")
    (file,) = folder.iterdir()
    assert "CANARY" not in file.name + file.read_text()


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


def test_a_pause_of_years_that_another_version_left_is_bounded(folder: Path) -> None:
    leave(folder, Failure("busy", 429, 1e9))
    assert left(folder) == Failure("busy", 429, MAX_RETRY_AFTER)


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
