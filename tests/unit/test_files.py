"""Private files: replaced atomically, for their owner alone, and nothing but regular files."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.files import open_private, write_file


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "token", "new\n")
    assert (tmp_path / "token").read_text() == "new\n"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


def test_an_old_file_is_replaced_with_its_rights_and_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reading:
        write_file(path, "new")
        assert reading.read() == "old"  # whoever reads meanwhile sees the old one, whole
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_file(link, "new")
    assert not link.is_symlink()
    assert (link.read_text(), target.read_text()) == ("new", "old")


def test_a_path_without_a_folder_is_one_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file(Path("token"), "new")
    assert (tmp_path / "token").read_text() == "new"


def test_the_text_is_on_the_disk_before_the_old_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    synced: list[tuple[int, str]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.read_text())))
    write_file(path, "newer")
    assert synced == [(5, "old")]


@pytest.mark.parametrize("parent", ["missing", "file", "/proc"])
def test_where_no_file_can_be_made_none_is(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / parent / "token", "CANARY")
    assert type(caught.value) is OutputError
    assert "CANARY" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_its_place_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    (tmp_path / "token" / "old").touch()
    with pytest.raises(OutputError, match="not a regular file") as caught:
        write_file(tmp_path / "token", "CANARY")
    assert "CANARY" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["token"]
    assert (tmp_path / "token" / "old").exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel lets nobody write more than 10 bytes to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_old_file_stays_whole_if_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    with pytest.raises(WriteError), full_disk():
        write_file(path, "CANARY" * 100)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_file_has_the_mode_it_is_given_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "token", "new", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "token").stat().st_mode & 0o7777 == mode


def test_a_file_belongs_to_whom_it_is_given_before_others_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: calls.append(("owner", *owner)))
    monkeypatch.setattr(os, "fchmod", lambda _, mode: calls.append(("mode", mode)))
    write_file(tmp_path / "token", "new", mode=0o640, owner=(1234, -1))
    assert calls == [("owner", 1234, -1), ("mode", 0o640)]
    calls.clear()
    write_file(tmp_path / "token", "newer")
    assert calls == [("mode", 0o600)]


def test_a_file_may_be_given_to_oneself(tmp_path: Path) -> None:
    write_file(tmp_path / "token", "new", owner=(os.getuid(), -1))
    assert (tmp_path / "token").stat().st_uid == os.getuid()


def test_an_owner_who_cannot_be_given_a_file_is_an_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "token").write_text("old")
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(WriteError, match="Operation not permitted"):
        write_file(tmp_path / "token", "CANARY", owner=(0, 0))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_private_file_is_for_its_owner_alone_and_empty_at_first(tmp_path: Path) -> None:
    for umask in (0, 0o077):
        (tmp_path / "report").write_text("old")
        (tmp_path / "report").chmod(0o644)
        before = os.umask(umask)
        try:
            with open_private(tmp_path / "report") as file, open_private(tmp_path / f"new {umask}"):
                assert (tmp_path / "report").read_text() == ""
                file.write("\u00e9\n".encode())
                assert (tmp_path / "report").read_bytes() == b"\xc3\xa9\n"  # at once, for whoever follows it
        finally:
            os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["missing/report", ".", "file/report"])
def test_a_private_file_that_cannot_be_made_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"be made|not a regular file"):
        open_private(tmp_path / name)
