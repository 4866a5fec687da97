"""Where results go: nothing but a regular file is replaced, and nobody is waited for beyond the deadline."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.devices import device

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output import destination as outputs
from vault_plugin.output.destination import Output, appending, must_be_appendable
from vault_plugin.timing.deadline import Deadline

PATIENCE = 30  # seconds


def write(name: object, text: str = "CANARY", seconds: float = PATIENCE) -> None:
    Output(str(name)).write(text, Deadline(seconds))


def identity(path: Path) -> tuple[int, int, int]:
    """What tells a node from another one of the same name."""
    about = path.lstat()
    return about.st_ino, about.st_mode, about.st_rdev


def test_a_device_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    null = device(tmp_path, "null")
    before = identity(null)
    write(null)
    with Output(str(null)).lines() as line:
        line(b"a\n")
    assert identity(null) == before
    assert [one.name for one in tmp_path.iterdir()] == ["null"]


def test_a_full_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No space left"):
        write(device(tmp_path, "full"))


@contextmanager
def reader(path: Path) -> Iterator[list[bytes]]:
    """Reads a FIFO to its end."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    yield found
    thread.join(PATIENCE)


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = identity(fifo)
    with reader(fifo) as found:
        write(fifo)
    assert found == [b"CANARY"]
    with reader(fifo) as found, Output(str(fifo)).lines() as line:
        line(b"a\n")
        line(b"b\n")
    assert found == [b"a\nb\n"]
    assert identity(fifo) == before


def test_a_fifo_that_nobody_reads_is_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "MIN_WRITE_TIMEOUT", 0.01)
    monkeypatch.setattr(outputs, "LINE_TIMEOUT", 0.01)
    for name in ("fifo", "other"):  # the next one must not be waited for, either
        os.mkfifo(tmp_path / name)
    with pytest.raises(WriteError, match="before the deadline") as caught:
        write(tmp_path / "fifo", seconds=0)
    assert "reads" in caught.value.hint
    with pytest.raises(WriteError), Output(str(tmp_path / "other")).lines():
        pytest.fail("nobody reads it")
    assert (tmp_path / "fifo").read_bytes() == b""  # lets the thread go, which writes no token any more


def test_a_fifo_that_is_full_is_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "LINE_TIMEOUT", 0.2)
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDWR)
    with (
        Output(str(tmp_path / "fifo")).lines() as line,
        pytest.raises(WriteError, match="before the deadline"),
    ):
        line(b"x" * 1_000_000)
    while len(os.read(descriptor, 1_000_000)) == 65536:  # lets the thread go
        pass
    os.close(descriptor)


def test_a_descriptor_that_the_caller_has_made_non_blocking_gets_the_whole_text() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reading, 2**20), b"")))
    with Output(f"/dev/fd/{writing}").lines() as line:
        os.write(writing, b"x" * 65536)  # it is full
        reader.start()
        line(b"y" * 300_000)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(got) == b"x" * 65536 + b"y" * 300_000


def test_another_users_fifo_in_a_shared_folder_gets_no_token(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    os.mkfifo(tmp_path / "fifo")
    os.chown(tmp_path / "fifo", 12345, 12345)
    with pytest.raises(OutputError, match="another user's FIFO"):
        write(tmp_path / "fifo")
    tmp_path.chmod(0o755)
    Output(str(tmp_path / "fifo"))


def test_a_device_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission to write"):
        Output(str(device(tmp_path, "null")))


def test_a_device_that_becomes_a_file_is_not_written_to(tmp_path: Path) -> None:
    null = device(tmp_path, "null")
    output = Output(str(null))
    null.unlink()
    null.write_text("precious")
    with pytest.raises(WriteError, match="regular file"):
        output.write("CANARY", Deadline(PATIENCE))
    assert null.read_text() == "precious"


@pytest.mark.parametrize("kind", ["folder", "socket", "", "link to folder", "link to socket"])
def test_folders_and_sockets_are_refused_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    for name in ("folder", "socket"):
        (tmp_path / f"link to {name}").symlink_to(name)
    before = {one: identity(one) for one in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="not a file"):
        write(kind)
    assert {one: identity(one) for one in tmp_path.iterdir()} == before


def test_a_link_is_replaced_unless_it_leads_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    null = device(tmp_path, "null")
    for name in ("file", "null", "nowhere"):
        (tmp_path / f"to {name}").symlink_to(name)
        write(tmp_path / f"to {name}")
    assert (tmp_path / "file").read_text() == "old"
    assert stat.S_ISCHR(null.stat().st_mode)
    assert [(tmp_path / f"to {name}").is_symlink() for name in ("file", "null", "nowhere")] == [
        False,
        True,
        False,
    ]


def test_what_cannot_be_made_is_refused_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing/token", "file/token", "x" * 256):
        with pytest.raises(OutputError):
            Output(str(tmp_path / name))
    Output(str(tmp_path / ("x" * 250))).write("CANARY", Deadline(PATIENCE))
    assert sorted(len(one.name) for one in tmp_path.iterdir()) == [4, 250]


@pytest.mark.parametrize(
    "form", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/proc/{pid}/fd/{}"]
)
def test_a_descriptor_is_written_where_it_stands_and_not_truncated(tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("before\n")
    with (tmp_path / "file").open("ab") as file:
        name = form.format(file.fileno(), pid=os.getpid())
        write(name, "after\n")
        with Output(name).lines() as line:
            line(b"line\n")
    assert (tmp_path / "file").read_text() == "before\nafter\nline\n"
    with pytest.raises(OutputError, match="Bad file descriptor"):
        Output(form.format(999999, pid=os.getpid()))


def test_a_descriptor_that_is_open_for_reading_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file, pytest.raises(OutputError, match="not open for writing"):
        Output(f"/dev/fd/{file.fileno()}")


def test_a_socket_has_a_descriptor_too() -> None:
    one, other = socket.socketpair()
    with one, other:
        write(f"/dev/fd/{one.fileno()}")
        assert other.recv(100) == b"CANARY"


def test_a_pipe_without_a_reader_is_told() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(WriteError, match="Broken pipe"):
        write(f"/dev/fd/{writing}")
    os.close(writing)


SHELL = """
import sys
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.output.destination import Output
from vault_plugin.timing.deadline import Deadline
try:
    Output(sys.argv[1]).write("CANARY", Deadline(30))
except KlearstackVaultError as exc:
    sys.exit(exc.exit_code)
"""


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`write NAME` in the script writes to that output."""
    return subprocess.run(
        [
            "bash",
            "-c",
            f'write() {{ "$0" -c "$1" "$2"; }}; write() {{ {sys.executable} -c "$CODE" "$1"; }}; {script}',
        ],
        cwd=folder,
        env=dict(os.environ) | {"CODE": SHELL},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        ("write /dev/stdout", 0, "CANARY", ""),
        ("write -", 0, "CANARY", ""),
        ("write /dev/stderr", 0, "", "CANARY"),
        ("echo old >file; write /dev/stdout >>file; cat file", 0, "old\nCANARY", ""),
        ("write >(cat >copy); wait $!; cat copy", 0, "CANARY", ""),
        ("write /dev/fd/7 7>file; cat file", 0, "CANARY", ""),
        ("write /dev/fd/7", 73, "", ""),
        ("write - >&-", 74, "", ""),
    ],
)
def test_what_a_shell_redirects_is_written_to(
    tmp_path: Path, script: str, code: int, out: str, err: str
) -> None:
    done = shell(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_lines_come_into_a_new_file_that_replaces_the_old_one(tmp_path: Path) -> None:
    victim, report = tmp_path / "victim", tmp_path / "report"
    victim.write_text("precious")
    victim.chmod(0o644)
    report.symlink_to(victim)
    with Output(str(report)).lines() as line:
        assert (report.is_symlink(), report.read_bytes()) == (False, b"")
        line(b"a\n")
        assert report.read_bytes() == b"a\n"  # at once, for whoever follows it
    assert (victim.read_text(), report.stat().st_mode & 0o777) == ("precious", 0o600)


# What is only ever appended to


def test_what_is_appended_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "output"
    for before, after in ((None, ""), ("", ""), ("a=1\n", "a=1\n"), ("a=1", "a=1\n")):
        file.unlink(missing_ok=True)
        if before is not None:
            file.write_text(before)
        must_be_appendable(file)
        with appending(file) as append:
            append("b=2\n")
        assert file.read_text() == f"{after}b=2\n"


def test_what_cannot_be_read_gets_a_line_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output").write_text("a=1\n")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with appending(tmp_path / "output") as append:
        append("b=2\n")
    monkeypatch.undo()
    assert (tmp_path / "output").read_text() == "a=1\n\nb=2\n"


def test_devices_and_descriptors_may_be_appended_to_and_nothing_else(tmp_path: Path) -> None:
    null = device(tmp_path, "null")
    must_be_appendable(null)
    with appending(null) as append:
        append("a")
    reading, writing = os.pipe()
    must_be_appendable(Path(f"/dev/fd/{writing}"))
    with appending(Path(f"/dev/fd/{writing}")) as append:
        append("a\n")
    assert os.read(reading, 10) == b"a\n"
    os.close(reading)
    os.close(writing)
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDWR)  # or it could not be opened
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing" / "output"):
        with pytest.raises(OSError, match=r".+"):
            must_be_appendable(path)
    os.close(descriptor)


# Signals

KILLED = """
import os, sys, time
from pathlib import Path
from vault_plugin.output import temporary
from vault_plugin.output.destination import Output
from vault_plugin.timing.deadline import Deadline

def fsync(_):
    print("written", flush=True)
    time.sleep(60)

os.fsync = fsync
Output(sys.argv[1]).write("CANARY", Deadline(30))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_signal_leaves_a_token_behind(tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "token"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        (left,) = tmp_path.iterdir()
        assert left.name.endswith(".klearstack-vault")
        write(target, "other")  # while it is in use, it is left alone
        assert left.exists()
        child.send_signal(number)
        child.wait(PATIENCE)
    assert child.returncode == -number
    if number is signal.SIGKILL:
        assert left.read_text() == "CANARY"
        write(tmp_path / "another")
        assert left.exists()
        write(target, "new")
    assert "CANARY" not in target.read_text()
    assert not left.exists()
