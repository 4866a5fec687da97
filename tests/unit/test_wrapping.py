"""Wrapping tokens: how long they are valid, what each format says of them, and where they are never written."""

import json
import os
import pty
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from support import brokers
from support.brokers import URL
from support.devices import device
from support.fakes import NOW, Run, token

from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.bulk.targets import Targets
from vault_plugin.errors import OutputError, StoreError, StoreRefusedError, TokenError
from vault_plugin.output import formats, wrapped
from vault_plugin.output.destination import Output
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import VaultRef, WrappingToken
from vault_plugin.vault import schema
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.token_wrapping import wrap
from vault_plugin.vault.transport import OutdatedError


class World(brokers.World):
    """The same broker for so many Vaults."""

    vaults = 1


WRAPPING = WrappingToken(Secret("hvs.CANARY-wrapping_1"), 120, NOW + 120.7)
GRANT = Grant(
    {kind: GrantedToken(token(kind), VaultRef("secret", f"p/{kind}", 7)) for kind in Kind},
    "vault",
    stale=False,
    now=NOW,
)


# How long


class SlowVault:
    """A Vault in whose tries to wrap this many seconds pass; what it was asked for."""

    def __init__(self, *seconds: float, left: float) -> None:
        self._seconds = list(seconds)
        self._left = left
        self.asked: list[int] = []
        self.outdated = False

    def left(self) -> float:
        return self._left

    def wrap(
        self, fields: Mapping[str, Any], ttl: int, deadline: Deadline, in_time: Callable[[], bool]
    ) -> WrappingToken:
        self.asked.append(ttl)
        assert in_time()
        self._left -= self._seconds.pop(0)
        if self.outdated and not in_time():
            raise OutdatedError
        return WrappingToken(Secret(f"hvs.{len(self.asked)}"), ttl, NOW + ttl)

    def wrapped(self, ttl: float) -> str:
        made = wrap(cast(VaultClient, self), {}, ttl, self.left, Deadline(10))
        assert made.ttl <= self._left
        return made.value.reveal()


@pytest.mark.parametrize("outdated", [False, True])
def test_one_that_would_outlive_the_token_is_replaced(outdated: bool) -> None:
    vault = SlowVault(1.1, 3.0, 0.7, left=100.0)
    vault.outdated = outdated
    assert vault.wrapped(1000) == "hvs.3"
    assert vault.asked == [99, 98, 94]


def test_a_short_time_is_kept_however_slow_vault_is() -> None:
    vault = SlowVault(30.0, left=100.0)
    assert (vault.wrapped(60.9), vault.asked) == ("hvs.1", [60])


@pytest.mark.parametrize(("seconds", "left"), [((), 1.2), ((5.0,), 5.5)])
def test_a_token_that_expires_too_soon_is_not_wrapped(seconds: tuple[float, ...], left: float) -> None:
    with pytest.raises(TokenError, match="expires before it can be wrapped"):
        SlowVault(*seconds, left=left).wrapped(60)


INFO = {"token": "hvs.x", "ttl": 60, "creation_time": "2026-09-21T14:13:20Z"}


@pytest.mark.parametrize(
    "change",
    [
        {"token": "hvs.x\n"},
        {"token": "hvs.x; rm"},
        {"token": ""},
        {"token": 5},
        {"ttl": 61},
        {"ttl": 0},
        {"ttl": "60"},
        {"creation_time": "now"},
    ],
)
def test_what_is_no_wrapping_token_is_not_returned_as_one(change: dict[str, object]) -> None:
    token, ttl, end = schema.wrap_info({"wrap_info": INFO}, 60)
    assert (token, ttl, round(end)) == ("hvs.x", 60, NOW + 60)
    with pytest.raises(schema.MalformedError):
        schema.wrap_info({"wrap_info": INFO | change}, 60)


# Formats


@pytest.mark.parametrize("form", wrapped.FORMATS)
def test_no_format_shows_a_token_and_each_but_the_raw_one_says_what_it_is(form: str) -> None:
    text = wrapped.render(GRANT, WRAPPING, form)
    assert "eyJ" not in text
    assert text.endswith("\n")
    assert WRAPPING.value.reveal() in text
    if form == "raw":
        assert text == f"{WRAPPING.value.reveal()}\n"
    else:
        assert "vault unwrap" in text


def test_json_has_the_wrapping_token_and_what_is_not_secret() -> None:
    plain = formats.describe(GRANT)
    for name in ("access_token", "refresh_token", "token_type"):
        del plain[name]
    assert json.loads(wrapped.render(GRANT, WRAPPING, "json")) == plain | {
        "wrapping_token": "hvs.CANARY-wrapping_1",
        "wrapping_expires_at": "2026-09-21T14:15:20Z",
        "wrapping_expires_in": 120,
        "unwrap": "vault unwrap",
    }


def test_github_masks_it_before_anything_else() -> None:
    first, second, end = wrapped.render(GRANT, WRAPPING, "github").split("\n")
    assert (first, end) == ("::add-mask::hvs.CANARY-wrapping_1", "")
    assert "hvs." not in second


@pytest.mark.parametrize("form", ["header", "curl"])
def test_it_goes_into_no_header_for_the_api(run: Run, form: str) -> None:
    done = run("get", "--wrap-ttl", "60", "--format", form)
    assert (done.code, done.out) == (64, "")
    assert "takes no wrapping token" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "--wrap-ttl", "0.5"], "--wrap-ttl must be at least 1 second"),
        (["get", "--wrap-ttl", "0"], "--wrap-ttl must be more than 0 seconds"),
        (["get", "--wrap-ttl", "soon"], "--wrap-ttl is not a duration such as 90"),
        (["sync", "m.csv", "--wrap-ttl", "60"], "--report"),
        (["sync", "m.csv", "--wrap-ttl", "60", "--report", "r", "--check"], "--check changes nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (64, "")
    assert message in done.err


# The commands


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A broker behind `get` and `sync`, with all settings there."""
    world = World()
    settings = {
        "KLEARSTACK_URL": URL,
        "KLEARSTACK_USER_ID": "26",
        "KLEARSTACK_COMPANY_NAME": "Acme",
        "VAULT_ADDR": "https://vault.example",
        "VAULT_TOKEN": "hvs.CANARY",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    for name, text in settings.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr("vault_plugin.commands.get.connect", lambda _: nullcontext(world.broker))
    monkeypatch.setattr(
        "vault_plugin.commands.sync.connect_all",
        lambda *_: nullcontext(Targets([world.broker] * world.vaults)),
    )
    return world


def test_get_prints_the_wrapping_token_of_what_its_json_would_be(world: World, run: Run) -> None:
    done = run("get", "--wrap-ttl", "60", "--token", "both")
    assert (done.code, done.out, done.err) == (0, "hvs.wrapping-1\n", "")
    plain = run("get", "--token", "both", "--format", "json")
    assert [one | {"source": "vault"} for one in world.store.wrapped] == [json.loads(plain.out)]


def test_get_hands_it_to_later_steps_of_github_and_never_goes_without_vault(
    world: World, run: Run, tmp_path: Path
) -> None:
    done = run("get", "--wrap-ttl", "60", "--format", "github", "--on-vault-error", "bypass")
    assert (done.code, done.out.splitlines()[0]) == (0, "::add-mask::hvs.wrapping-1")
    assert "\nhvs.wrapping-1\n" in (tmp_path / "output").read_text()
    world.store.wrap_error = StoreError("Vault is down.")
    done = run("get", "--wrap-ttl", "60", "--format", "json", "--on-vault-error", "bypass")
    assert (done.code, json.loads(done.out)["error"]["code"]) == (69, "vault_unavailable")


@pytest.mark.parametrize("vaults", [1, 2])
def test_each_line_of_a_report_has_one(world: World, run: Run, tmp_path: Path, vaults: int) -> None:
    world.vaults = vaults
    (tmp_path / "m.csv").write_text("user_id\n26\n")
    report = tmp_path / "report"
    done = run("sync", str(tmp_path / "m.csv"), "--report", str(report), "--wrap-ttl", "60")
    assert (done.code, done.err) == (0, "")
    row = json.loads(report.read_text())
    assert (row["result"], row["wrapping_token"], row["unwrap"]) == (
        "minted",
        "hvs.wrapping-1",
        "vault unwrap",
    )
    (fields,) = world.store.wrapped
    assert ("vault" in fields) == (vaults == 1)


def test_an_identity_whose_token_cannot_be_wrapped_has_failed(world: World, run: Run, tmp_path: Path) -> None:
    world.store.wrap_error = StoreRefusedError("No.")
    (tmp_path / "m.csv").write_text("user_id\n26\n")
    report = tmp_path / "report"
    done = run("sync", str(tmp_path / "m.csv"), "--report", str(report), "--wrap-ttl", "60")
    row = json.loads(report.read_text())
    assert (done.code, row["result"], row["error"]["code"]) == (5, "failed", "vault_refused")
    assert "wrapping_token" not in row


# Where to


def refused(name: object, why: str) -> None:
    Output(str(name))  # which takes what is no secret
    with pytest.raises(OutputError, match=why) as caught:
        Output(str(name), secret=True)
    assert caught.value.exit_code == 73


def test_a_secret_is_written_to_no_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        refused(os.ttyname(theirs), "is a terminal")
        refused(f"/dev/fd/{theirs}", "is a terminal")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_secret_is_written_to_nothing_that_others_can_open(tmp_path: Path, mode: int) -> None:
    file, fifo = tmp_path / "file", tmp_path / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(mode)
    refused(fifo, f"can be read by other users \\(mode 0{mode:o}\\)")
    with file.open("w") as opened:
        file.chmod(mode)
        refused(f"/dev/fd/{opened.fileno()}", "can be read by other users")
        file.chmod(0o600)
        Output(f"/dev/fd/{opened.fileno()}", secret=True)
    file.chmod(mode)
    with Output(str(file), secret=True).lines() as line:  # a new file replaces it
        line(b"a\n")
    assert file.stat().st_mode & 0o777 == 0o600


def test_pipes_sockets_and_devices_that_are_no_terminals_take_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    ends = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for name in (fifo, f"/dev/fd/{ends[1]}", f"/dev/fd/{ours.fileno()}", device(tmp_path, "null")):
            Output(str(name), secret=True)
    for end in ends:
        os.close(end)


def test_a_terminal_that_cannot_be_opened_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    null = device(tmp_path, "null")

    def fail(*_: object) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OutputError, match="cannot be written \\(No such device or address\\)"):
        Output(str(null), secret=True)


def test_a_failure_of_vault_is_raised() -> None:
    class Down(SlowVault):
        def wrap(self, *_: object) -> WrappingToken:
            raise StoreError("Vault is down.")

    with pytest.raises(StoreError, match="down"):
        Down(left=100).wrapped(60)
