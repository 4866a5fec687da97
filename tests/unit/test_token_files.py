"""Token files of `exec`: where they are, and that they do not outlive their process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vault_plugin.errors import OutputError, WriteError
from vault_plugin.output import private_files, token_files
from vault_plugin.output.temporary import temporary_folder
from vault_plugin.output.token_files import TokenFiles

PATIENCE = 30
HOLDER = """
import sys, time
from vault_plugin.output import private_files
from vault_plugin.output import token_files
token_files.MEMORY = sys.argv[1]
with token_files.TokenFiles({"TOKEN": "CANARY"}) as files:
    print(files.paths["TOKEN"], flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("runtime", "memory", "temporary")}
    for folder in made.values():
        folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made["runtime"]))
    monkeypatch.setattr(token_files, "MEMORY", str(made["memory"]))
    monkeypatch.setattr(tempfile, "tempdir", str(made["temporary"]))
    return made


def test_memory_comes_first_and_nothing_stays(places: dict[str, Path]) -> None:
    for name, folder in places.items():
        with TokenFiles({"TOKEN": "CANARY"}) as files:
            path = Path(files.paths["TOKEN"])
            assert (path.parent.parent, path.read_text()) == (folder, "CANARY")
            assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert list(folder.iterdir()) == [], name
        folder.rmdir()
    with pytest.raises(OutputError, match="No folder can be created"), TokenFiles({"TOKEN": "CANARY"}):
        pytest.fail("there is no folder")


def test_a_runtime_folder_that_is_no_path_is_passed_over(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        with TokenFiles({"TOKEN": "CANARY"}) as files:
            assert files.paths["TOKEN"].startswith(str(places["memory"]))


def test_without_any_temporary_folder_the_error_says_why(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert list(token_files._parents())[-1] == "/tmp"


def test_a_memory_that_is_full_is_passed_over(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = private_files.write_file

    def full(path: Path, text: str) -> None:
        if "memory" in path.parts or "runtime" in path.parts:
            raise WriteError("full")
        write(path, text)

    monkeypatch.setattr(token_files, "write_file", full)
    with TokenFiles({"TOKEN": "CANARY"}) as files:
        assert files.paths["TOKEN"].startswith(str(places["temporary"]))
    assert not [one for folder in places.values() for one in folder.iterdir()]


def test_what_cannot_be_written_again_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WriteError("full")

    with TokenFiles({"TOKEN": "CANARY"}) as files:
        Path(files.paths["TOKEN"]).unlink()
        monkeypatch.setattr(token_files, "write_file", full)
        files.keep()
        files.keep()
    assert len(caplog.messages) == 1


def test_what_a_killed_process_left_behind_is_removed_by_the_next(places: dict[str, Path]) -> None:
    places["runtime"].rmdir()
    (places["memory"] / "klearstack-vault-exec-file").touch()
    (places["memory"] / "klearstack-vault-exec-other").mkdir()
    os.chown(places["memory"] / "klearstack-vault-exec-other", 12345, 12345)
    before = sorted(places["memory"].iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(places["memory"])], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().strip())
        with TokenFiles({}):
            assert path.read_text() == "CANARY"  # it is in use
        child.send_signal(signal.SIGKILL)
        child.wait(PATIENCE)
    assert path.read_text() == "CANARY"
    with TokenFiles({}):
        assert not path.parent.exists()
    assert sorted(places["memory"].iterdir()) == before


@pytest.mark.parametrize(("failure", "works"), [(errno.EWOULDBLOCK, False), (errno.ENOLCK, True)])
def test_a_folder_that_another_process_takes_is_not_used(
    monkeypatch: pytest.MonkeyPatch, failure: int, works: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(failure, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    if works:
        with TokenFiles({"TOKEN": "CANARY"}) as files:
            assert Path(files.paths["TOKEN"]).exists()
    else:
        with pytest.raises(OutputError, match="another process"), TokenFiles({"TOKEN": "CANARY"}):
            pytest.fail("another process removes it")


def test_a_folder_that_vanishes_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, []

    def vanish(*arguments: object, **how: object) -> str:
        made.append(make(*arguments, **how))  # type: ignore[call-overload]
        if len(made) == 1:
            Path(made[0]).rmdir()
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", vanish)
    with TokenFiles({"TOKEN": "CANARY"}):
        assert len(made) == 2


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="No temporary folder can be created") as caught,
        temporary_folder("x", str(tmp_path / "missing")),
    ):
        pass
    assert "TMPDIR" in caught.value.hint
