"""What a grant looks like outside, and how it gets into a file."""

import json
import os
import re
import resource
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.devices import device
from support.fakes import NOW, jwt, token

from vault_plugin.broker import Grant, Held
from vault_plugin.errors import OutputError, SettingsError, UsageError, WriteError
from vault_plugin.formats import FORMATS, open_private, render, render_error, write_file
from vault_plugin.record import VaultRef
from vault_plugin.tokens import Kind

ACCESS, REFRESH, BOTH = (Kind.ACCESS,), (Kind.REFRESH,), (Kind.ACCESS, Kind.REFRESH)
DELETION = "2026-09-21T14:28:19.5Z"


def grant(kinds: Collection[Kind] = ACCESS, *, stored: bool = True, stale: bool = False) -> Grant:
    """As after 100 s of a life of 900 s."""
    held = {
        kind: Held(
            token(kind, life=900 if kind is Kind.ACCESS else 86400),
            VaultRef("secret", f"klearstack/Acme/26/{kind}", 7, DELETION) if stored else None,
        )
        for kind in kinds
    }
    return Grant(held, "vault" if stored else "endpoint", stale, NOW + 100.5)


ACCESS_JWT = grant().access.token.value.reveal()
REFRESH_JWT = grant(REFRESH).refresh.token.value.reveal()


def place(kind: str) -> dict[str, object]:
    path = f"klearstack/Acme/26/{kind}"
    return {"mount": "secret", "path": path, "version": 7, "deletion_time": DELETION}


def test_raw_is_the_token_and_nothing_else() -> None:
    assert render(grant(), "raw") == f"{ACCESS_JWT}\n"
    assert render(grant(REFRESH), "raw") == f"{REFRESH_JWT}\n"
    assert render(grant(BOTH), "raw") == f"{ACCESS_JWT}\n{REFRESH_JWT}\n"


def test_json_tells_all_about_the_access_token() -> None:
    assert json.loads(render(grant(), "json")) == {
        "access_token": ACCESS_JWT,
        "token_type": "Bearer",
        "expires_at": "2026-09-21T14:28:20Z",
        "expires_in": 799,
        "source": "vault",
        "stale": False,
        "vault": place("access"),
    }


def test_json_tells_all_about_the_refresh_token_under_names_of_its_own() -> None:
    assert json.loads(render(grant(REFRESH), "json")) == {
        "refresh_token": REFRESH_JWT,
        "token_type": "Bearer",
        "refresh_expires_at": "2026-09-22T14:13:20Z",
        "refresh_expires_in": 86299,
        "source": "vault",
        "stale": False,
        "refresh_vault": place("refresh"),
    }


def test_json_of_both_is_the_two_together() -> None:
    one, other = (json.loads(render(grant(kinds), "json")) for kinds in (ACCESS, REFRESH))
    assert json.loads(render(grant(BOTH), "json")) == one | other


def test_json_of_a_bypassed_vault_has_no_place() -> None:
    answer = json.loads(render(grant(BOTH, stored=False), "json"))
    assert (answer["vault"], answer["refresh_vault"], answer["source"]) == (None, None, "endpoint")


def test_json_marks_what_is_stale() -> None:
    assert json.loads(render(grant(stale=True), "json"))["stale"] is True


def test_json_is_one_line() -> None:
    assert render(grant(BOTH), "json").count("\n") == 1


def test_header_is_the_line_that_a_request_wants() -> None:
    assert render(grant(), "header") == f"Authorization: Bearer {ACCESS_JWT}\n"


def test_curl_is_a_line_of_its_config_file() -> None:
    assert render(grant(), "curl") == f'header = "Authorization: Bearer {ACCESS_JWT}"\n'


@pytest.mark.parametrize("form", ["header", "curl"])
@pytest.mark.parametrize("kinds", [REFRESH, BOTH])
def test_a_refresh_token_never_goes_into_a_header(form: str, kinds: Collection[Kind]) -> None:
    with pytest.raises(UsageError):
        render(grant(kinds), form)


def test_env_is_what_a_shell_can_eval() -> None:
    script = (
        'eval "$1"; printf "%s\\n" "$KLEARSTACK_ACCESS_TOKEN" "$KLEARSTACK_TOKEN_EXPIRATION"'
        ' "$KLEARSTACK_REFRESH_TOKEN" "$KLEARSTACK_REFRESH_TOKEN_EXPIRATION"; env'
    )
    done = subprocess.run(
        ["sh", "-euc", script, "sh", render(grant(BOTH), "env")],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert said[:4] == [ACCESS_JWT, "2026-09-21T14:28:20Z", REFRESH_JWT, "2026-09-22T14:13:20Z"]
    assert f"KLEARSTACK_ACCESS_TOKEN={ACCESS_JWT}" in said[4:]  # exported, too
    assert done.stderr == ""


def test_env_names_only_what_was_asked_for() -> None:
    assert render(grant(), "env") == (
        f"export KLEARSTACK_ACCESS_TOKEN={ACCESS_JWT}\nexport KLEARSTACK_TOKEN_EXPIRATION=2026-09-21T14:28:20Z\n"
    )
    assert "ACCESS" not in render(grant(REFRESH), "env")


def test_github_masks_each_token_and_the_parts_that_somebody_might_print() -> None:
    def masks(jwt: str) -> str:
        head, _, signature = jwt.rpartition(".")
        assert re.fullmatch(r"[\w.-]+", jwt, re.ASCII)  # no %, CR or LF, which GitHub would want escaped
        return f"::add-mask::{jwt}\n::add-mask::{head}\n::add-mask::{signature}\n"

    assert render(grant(), "github") == masks(ACCESS_JWT)
    assert render(grant(BOTH), "github") == masks(ACCESS_JWT) + masks(REFRESH_JWT)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_in_one_newline_and_takes_a_bypassed_vault(form: str) -> None:
    text = render(grant(stored=False), form)
    assert jwt() in text
    assert text == text.strip() + "\n"


def test_the_formats_are_the_promised_ones() -> None:
    assert list(FORMATS) == ["raw", "json", "env", "header", "curl", "github"]


def test_an_error_is_a_json_object_on_one_line() -> None:
    text = render_error(SettingsError("What failed.", hint="What to do."))
    assert json.loads(text) == {
        "error": {"code": "settings", "message": "What failed.", "hint": "What to do.", "retryable": False}
    }
    assert text.count("\n") == 1


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
    with pytest.raises(WriteError) as caught:
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


def test_a_device_is_written_to_and_keeps_its_mode(tmp_path: Path) -> None:
    null = device(tmp_path, "null")
    before = null.stat().st_mode
    with open_private(null) as file:
        file.write(b"nothing\n")
    assert null.stat().st_mode == before


@pytest.mark.parametrize("name", ["missing/report", ".", "file/report"])
def test_a_private_file_that_cannot_be_made_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        open_private(tmp_path / name)
