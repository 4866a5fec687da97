"""Text from the environment and from files is UTF-8, and loses one line end at most."""

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from vault_plugin.errors import SettingsError
from vault_plugin.settings import Settings, environment
from vault_plugin.settings.environment import look_up, process_environment, text_of_file, without_line_end
from vault_plugin.timing.deadline import Deadline


def test_a_file_loses_its_final_line_end_and_nothing_else(tmp_path: Path) -> None:
    for content, text in (
        (b"", ""),
        (b"26", "26"),
        (b"26\n", "26"),
        (b"26\r\n", "26"),
        (b"26\n\n", "26\n"),
        (b"26\r\n\r\n", "26\r\n"),
        (b"26\r", "26\r"),
        (b"26\n\r", "26\n\r"),
        (b"\n26\n", "\n26"),
        (b" 26 \n", " 26 "),
        (b"\xef\xbb\xbf26\n", "\ufeff26"),
        (b"26\xe2\x80\xa8", "26\u2028"),
    ):
        (tmp_path / "file").write_bytes(content)
        assert text_of_file(tmp_path / "file", "", Deadline(5)) == text, content
        assert without_line_end(content.decode()) == text, content


def test_a_text_from_a_file_comes_with_where_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("26\n")
    environ = {"ONE": "", "ONE_FILE": "", "TWO_FILE": str(tmp_path / "file"), "THREE": "27"}
    assert look_up(("ONE", "TWO", "THREE"), environ, Deadline(5)) == (
        "26",
        ", as read from the file that TWO_FILE names,",
        "TWO_FILE",
    )
    assert look_up(("THREE", "TWO"), environ, Deadline(5)) == ("27", "", "THREE")
    assert look_up(("ONE",), environ, Deadline(5)) is None


def test_the_environment_is_utf_8_whatever_the_locale_of_the_program_that_imports_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert process_environment() is os.environ
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setitem(os.environb, b"KLEARSTACK_COMPANY_NAME", "A\u00e7me".encode())
    monkeypatch.setitem(os.environb, b"KLEARSTACK_USER_ID", b"\xe7")
    environ = process_environment()
    assert environ["KLEARSTACK_COMPANY_NAME"] == "A\u00e7me"
    assert environ["KLEARSTACK_USER_ID"] == "\udce7"
    for name in ("KLEARSTACK_URL", "VAULT_ADDR"):
        monkeypatch.setenv(name, "https://host.example")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.token")
    assert Settings.from_env(user_id="26").company_name == "A\u00e7me"


def test_a_credential_file_is_read_again_while_another_program_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "REWRITTEN", 60.0)
    file, contents = tmp_path / "token", ["", " \n", "hvs.token\n"]

    def sleep(seconds: float) -> None:
        assert 0 <= seconds <= 0.5
        file.write_text(contents.pop(0))

    monkeypatch.setattr(time, "sleep", sleep)
    assert text_of_file(file, "", Deadline(600), rewritten=True) == "hvs.token"
    assert contents == []


@pytest.mark.parametrize("name", ["empty", "missing", "folder", "latin-1"])
def test_a_file_that_stays_without_text_is_told_after_a_part_of_the_deadline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "REWRITTEN", 0.2)
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin-1").write_bytes(b"\xe7")
    deadline = Deadline(60)
    expected = nullcontext() if name == "empty" else pytest.raises(ValueError, match="cannot be read")
    with expected:
        assert text_of_file(tmp_path / name, "cannot be read", deadline, rewritten=True) == ""
    assert deadline.left() > 30


def test_nobody_waits_for_a_file_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "REWRITTEN", 60.0)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waits"))
    with pytest.raises(ValueError, match="cannot be read"):
        text_of_file(tmp_path / "token", "cannot be read", Deadline(600), rewritten=True, given=False)


def test_a_file_that_keeps_its_text_back_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingsError, match="could not be read before the deadline passed"):
        text_of_file(tmp_path / "fifo", "", Deadline(0.05))
    os.close(os.open(tmp_path / "fifo", os.O_WRONLY))  # whoever still reads it ends
