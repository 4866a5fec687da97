"""Private files: replaced atomically, for their owner alone, and nothing but regular files."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
from support import notes
from support.devices import device

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output import private_files as files
from vault_plugin.output import temporary
from vault_plugin.output.private_files import Rights, append_whole, make_folders, open_private, write_file


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
    with pytest.raises(OutputError, match=r"be created|not a regular file"):
        open_private(tmp_path / name)


# Leftovers, mounts, folders


def leftover(path: Path, slot: int = 0) -> Path:
    digest = sha256(path.name.encode()).hexdigest()[:16]
    return path.parent / f".{digest}.{slot}{temporary.SUFFIX}"


def test_what_a_killed_writer_left_is_removed_if_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for slot in range(4):
        leftover(path, slot).write_text("CANARY")
    os.chown(leftover(path, 1), 12345, 12345)
    leftover(path, 4).symlink_to("token")
    os.mkfifo(leftover(path, 5))
    with leftover(path, 2).open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        write_file(path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([path, *(leftover(path, slot) for slot in (1, 2, 4, 5))])
    write_file(path, "new", owner=(12345, -1))  # whom a killed writer may have given it to
    assert not leftover(path, 1).exists()


def test_there_is_always_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    for slot in range(temporary.SLOTS):
        leftover(path, slot).mkdir()
    write_file(path, "new")
    assert path.read_text() == "new"
    monkeypatch.setattr(temporary, "_created", lambda _: None)
    with pytest.raises(OutputError, match="File exists"):
        write_file(path, "newer")


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.ENOLCK])
def test_a_new_file_that_another_process_takes_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if number == errno.ENOLCK:
        write_file(tmp_path / "token", "new")
    else:
        with pytest.raises(OutputError, match="File exists"):
            write_file(tmp_path / "token", "new")
        assert {one.read_bytes() for one in tmp_path.iterdir()} == {b""}  # that process removes them
        monkeypatch.undo()
        write_file(tmp_path / "token", "new")  # or the next writer does
        assert len([*tmp_path.iterdir()]) == 2  # all but one, of a random name


def test_many_writers_of_one_file_leave_one_of_them_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: write_file(tmp_path / "token", f"{number}" * 1000), range(200, 300)))
    text = (tmp_path / "token").read_text()
    assert (len(text), len({text[i : i + 3] for i in range(0, 3000, 3)})) == (3000, 1)
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_what_is_in_use_at_the_end_is_removed(tmp_path: Path) -> None:
    descriptor, name = temporary.temporary_file(tmp_path / "token")
    temporary._remove_temporary_files()
    assert list(tmp_path.iterdir()) == []
    temporary.discard(descriptor, name)


@pytest.mark.parametrize(("mode", "wanted"), [(0o600, 0o700), (0o640, 0o750), (0o440, 0o750), (0o660, 0o750)])
@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_folders_have_the_mode_that_follows_the_files(
    tmp_path: Path, mode: int, wanted: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        make_folders(tmp_path / "a" / "b", Rights(mode, (12345, 12346)))
        make_folders(tmp_path / "a" / "b", Rights(mode))
    finally:
        os.umask(before)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        about = folder.stat()
        assert (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (wanted, 12345, 12346)


def test_a_folder_that_another_thread_made_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: path == tmp_path)
    (tmp_path / "a").mkdir(0o755)
    make_folders(tmp_path / "a", Rights())
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


MOUNTED = """
set -e
mount --bind "$1/source" "$1/token"
"$2" -c "$3" "$1/token"
cat "$1/token"
"""
WRITE = """
import logging, sys
from pathlib import Path
from typing import NoReturn
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.output.private_files import holds, must_be_creatable, open_private, write_file, PRIVATE
logging.basicConfig(format="%(message)s")
path = Path(sys.argv[1])
must_be_creatable(path)
write_file(path, "a long first text", mode=0o600)
write_file(path, "new")
assert holds(path, "new", PRIVATE)
"""


def in_namespace(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of bash where its mounts are seen by nobody else; skips where that is not allowed."""
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash"]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        raise notes.skipped("no mount namespace can be made here", "what is mounted")
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_single_file_that_is_mounted_is_rewritten_in_place_with_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("source", "token"):
        (folder / name).write_text("old")
    done = in_namespace(MOUNTED, folder, sys.executable, WRITE)
    assert (done.returncode, done.stdout) == (0, "new"), done.stderr
    assert done.stderr.count("cannot be replaced atomically") == 1
    about = (folder / "source").stat()
    assert ((folder / "source").read_text(), about.st_mode & 0o777) == ("new", 0o600)
    assert sorted(one.name for one in folder.iterdir()) == ["source", "token"]


READ_ONLY = """
set -e
mount -t tmpfs none "$1/root"
touch "$1/root/token"
mount --bind "$1/source" "$1/root/token"
mount -o remount,ro "$1/root"
"$2" -c "$3" "$1/root/token"
cat "$1/root/token"
"$2" -c "$3" "$1/root/other" 2>&1 | tail -n 1
"""


def test_a_mounted_file_in_a_read_only_folder_is_rewritten_and_no_other_is_made(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "source").write_text("old")
    done = in_namespace(READ_ONLY, tmp_path, sys.executable, WRITE)
    text, _, rest = done.stdout.partition("\n") if "\n" in done.stdout else (done.stdout, "", "")
    assert text.startswith("new"), done.stderr
    assert "Read-only file system" in text + rest
    assert (tmp_path / "source").read_text() == "new"


def test_a_mounted_file_that_cannot_be_rewritten_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", busy)
    write_file(path, "new", owner=(os.getuid(), os.getgid()))
    assert path.read_text() == "new"
    monkeypatch.setattr(os, "write", lambda _, content: len(content) - 1)
    monkeypatch.setattr(files, "write_all", lambda *_: None)
    with pytest.raises(WriteError, match="No space left"):
        write_file(path, "newer")
    monkeypatch.undo()
    for other in (tmp_path / "folder", tmp_path / "missing", device(tmp_path, "null")):
        if other.name == "folder":
            other.mkdir()
        with pytest.raises(WriteError):
            files._rewritten(other, b"x", Rights())


def test_a_file_without_a_table_of_mounts_is_not_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "open", missing)
    assert not files._is_mounted(tmp_path)


def test_a_mounted_file_is_rewritten_again_without_a_further_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    monkeypatch.setattr(files, "_is_mounted", lambda _: True)

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "temporary_file", read_only)
    files.must_be_creatable(path)
    for text in ("a longer text", "new"):
        write_file(path, text)
        assert path.read_text() == text
    assert len(caplog.messages) == 1


def test_a_file_system_that_hangs_does_not_keep_a_signal_from_ending_us(tmp_path: Path) -> None:
    descriptor, name = temporary.temporary_file(tmp_path / "token")
    held, release = threading.Event(), threading.Event()

    def hang() -> None:
        with temporary._guard:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hang)
    thread.start()
    held.wait(30)
    temporary._remove_temporary_files()  # gives up after half a second
    assert Path(name).exists()
    release.set()
    thread.join()
    temporary.discard(descriptor, name)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_ends_the_process_does_so_when_the_temporary_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(signal, "signal", lambda number, how: raised.append(-number))
    descriptor, name = temporary.temporary_file(tmp_path / "token")
    temporary._end(signal.SIGTERM, None)
    assert (Path(name).exists(), raised) == (False, [-signal.SIGTERM, signal.SIGTERM])
    temporary.discard(descriptor, name)


def test_what_is_mounted_is_found_by_its_path() -> None:
    assert files._is_mounted(Path("/proc"))
    assert not files._is_mounted(Path("/proc/self"))


def test_a_line_that_does_not_fit_leaves_those_before_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(descriptor: int, content: bytes) -> NoReturn:
        os.write(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_private(tmp_path / "report") as file:
        append_whole(file.fileno(), b"first\n")
        monkeypatch.setattr("vault_plugin.output.private_files.write_all", half)
        with pytest.raises(OSError, match="No space left"):
            append_whole(file.fileno(), b"second\n")
    assert (tmp_path / "report").read_bytes() == b"first\n"
