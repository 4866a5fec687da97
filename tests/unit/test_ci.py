"""What is handed on in a CI system, and what is not."""

import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from support.devices import device
from support.fakes import NOW, token

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import KlearstackVaultError, OutputError, SettingsError, UsageError, WriteError
from vault_plugin.output.ci import check, write_step_outputs
from vault_plugin.output.formats import FORMATS
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import VaultRef, WrappingToken


def grant(kinds: Collection[Kind], version: int | None = 7) -> Grant:
    held = {kind: GrantedToken(token(kind), VaultRef("kv", f"p/Acme/26/{kind}", version)) for kind in kinds}
    return Grant(held, "vault", stale=False, now=NOW)


def outputs(text: str) -> dict[str, str]:
    """What GitHub reads from such a file."""
    found = re.findall(r"(\w+)<<(ghadelimiter_[0-9a-f]{32})\n(.*?)\n\2\n", text, re.DOTALL)
    assert "".join(f"{name}<<{end}\n{value}\n{end}\n" for name, end, value in found) == text
    return {name: value for name, _, value in found}


def test_handles_are_appended_and_hold_no_token(tmp_path: Path) -> None:
    file = tmp_path / "output"
    file.write_text("")
    write_step_outputs(grant((Kind.ACCESS,)), {"GITHUB_OUTPUT": str(file)})
    assert outputs(file.read_text()) == {"handle": "kv/p/Acme/26/access#7"}
    write_step_outputs(grant(tuple(Kind)), {"GITHUB_OUTPUT": str(file)})
    assert outputs(file.read_text()) == {
        "handle": "kv/p/Acme/26/access#7",
        "refresh_handle": "kv/p/Acme/26/refresh#7",
    }
    assert file.read_text().count("handle<<") == 3
    assert "eyJ" not in file.read_text()


def test_kv_v1_has_no_version_to_tell(tmp_path: Path) -> None:
    write_step_outputs(grant((Kind.ACCESS,), None), {"GITHUB_OUTPUT": str(tmp_path / "output")})
    assert outputs((tmp_path / "output").read_text()) == {"handle": "kv/p/Acme/26/access"}


def test_a_wrapping_token_is_an_output_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "output"
    wrapping = WrappingToken(Secret("hvs.wrapping"), 60, NOW + 60)
    write_step_outputs(grant((Kind.ACCESS,)), {"GITHUB_OUTPUT": str(file)}, wrapping=wrapping)
    assert outputs(file.read_text()) == {
        "wrapping_token": "hvs.wrapping",
        "handle": "kv/p/Acme/26/access#7",
    }


def test_no_two_delimiters_are_the_same(tmp_path: Path) -> None:
    write_step_outputs(grant(tuple(Kind)), {"GITHUB_OUTPUT": str(tmp_path / "output")})
    assert len(set(re.findall(r"<<(.*)", (tmp_path / "output").read_text()))) == 2


def test_a_file_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path))
    with pytest.raises(OutputError, match="GITHUB_OUTPUT") as caught:
        write_step_outputs(grant((Kind.ACCESS,)))
    assert (caught.value.exit_code, caught.value.hint) == (73, "Check its path and mode.")


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    full = device(tmp_path, "full")
    with full.open("wb") as opened:
        for path in (full, f"/dev/fd/{opened.fileno()}"):
            with pytest.raises(WriteError) as caught:
                write_step_outputs(grant((Kind.ACCESS,)), {"GITHUB_OUTPUT": str(path)})
            assert caught.value.exit_code == 74
            assert caught.value.line == (
                "The file that GITHUB_OUTPUT names cannot be written (No space left on device)."
            )


@pytest.mark.parametrize("environ", [{}, {"GITHUB_OUTPUT": ""}])
def test_outside_of_github_there_is_nothing_to_hand_on_to(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="GITHUB_OUTPUT"):
        check("github", None, environ)


def test_a_mask_in_a_file_is_none() -> None:
    with pytest.raises(UsageError, match="standard output"):
        check("github", "file", {"GITHUB_OUTPUT": "x"})
    check("github", None, {"GITHUB_OUTPUT": "x"})


def test_in_gitlab_no_file_of_variables_is_made_by_output(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="dotenv") as caught:
        check("env", "build.env", {"GITLAB_CI": "true"})
    assert "exec" in caught.value.hint
    for form in FORMATS.keys() - {"env", "github"}:
        check(form, "file", {"GITLAB_CI": "true"})
    check("env", "file", {})
    check("env", "file", {"GITLAB_CI": ""})


REDIRECTED = """
import os, subprocess, sys
from vault_plugin.output.ci import check
from vault_plugin.errors import UsageError
before = os.dup(1)
for to, form, gitlab in (
    ("file", "env", "true"), ("append", "env", "true"), ("pipe", "env", "true"), ("null", "env", "true"),
    ("closed", "env", "true"), ("file", "env", ""), ("file", "json", "true"),
):
    os.environ["GITLAB_CI"] = gitlab
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat, open("null", "wb") as null, \\
            open("x", "wb") as file, open("y", "ab") as append:
        if to == "closed":
            os.close(1)
        else:
            where = {"file": file, "append": append, "pipe": cat.stdin, "null": null}[to]
            os.dup2(where.fileno(), 1)
        try:
            check(form, None)
            said = "taken"
        except UsageError:
            said = "refused"
        os.dup2(before, 1)
    print(to, form, gitlab, said, flush=True)
"""


@pytest.mark.usefixtures("measured")
def test_in_gitlab_no_file_of_variables_is_made_by_the_shell(tmp_path: Path) -> None:
    device(tmp_path, "null")
    done = subprocess.run(
        [sys.executable, "-c", REDIRECTED], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "file env true refused",
        "append env true refused",
        "pipe env true taken",
        "null env true taken",
        "closed env true taken",
        "file env  taken",
        "file json true taken",
    ]


def test_each_refusal_says_what_to_do() -> None:
    for form, output, environ in (
        ("github", None, {}),
        ("github", "file", {}),
        ("env", "file", {"GITLAB_CI": "1"}),
    ):
        with pytest.raises(KlearstackVaultError) as caught:
            check(form, output, environ)
        assert caught.value.hint


def test_an_output_that_cannot_be_appended_to_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "output"):
        with pytest.raises(OutputError, match="GITHUB_OUTPUT"):
            check("github", None, {"GITHUB_OUTPUT": str(path)})
    check("github", None, {"GITHUB_OUTPUT": str(tmp_path / "output")})
    assert list(tmp_path.iterdir()) == []


def test_what_is_handed_on_stands_on_lines_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a=1")
    write_step_outputs(grant((Kind.ACCESS,)), {"GITHUB_OUTPUT": str(tmp_path / "output")})
    first, _, rest = (tmp_path / "output").read_text().partition("\n")
    assert (first, outputs(rest)) == ("a=1", {"handle": "kv/p/Acme/26/access#7"})
