"""The folder of the lock files belongs to this user alone."""

import os
from pathlib import Path

import pytest
from support.devices import device
from support.locks import lock_file, refused

from vault_plugin.errors import OutputError
from vault_plugin.locks.folder import LockFolder
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.deadline import Deadline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def test_neither_folder_nor_files_are_open_to_others(folder: Path) -> None:
    previous = os.umask(0)
    try:
        with SingleFlight(str(folder)).lock("key", Deadline(0)):
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / lock_file("key")).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(previous)


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
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    for names, said in (
        (["missing"], "No such file"),
        (["."], "it is not writable"),
        (["missing", "file"], "Not a directory"),
        (["file", "missing"], "No such file"),
        (["file", "."], "it is not writable"),
    ):
        folder = LockFolder(None)
        folder._temporary = [tmp_path / name for name in names]
        with pytest.raises(OSError, match=said):
            folder.open("name")
        assert str(folder) == f"{tmp_path / names[-1]}/klearstack-vault-{os.getuid()}", names


def test_the_temporary_folder_that_is_used_is_the_one_that_an_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setenv("TMP", str(tmp_path))
    ours = tmp_path / f"klearstack-vault-{os.getuid()}"
    (ours / lock_file("key")).mkdir(parents=True)
    ours.chmod(0o700)
    with (
        pytest.raises(OutputError, match=rf"^No lock file can be created in {ours} \(Is a directory\)"),
        SingleFlight(None).lock("key", Deadline(0)),
    ):
        pytest.fail("a lock was acquired")


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
