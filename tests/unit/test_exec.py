"""What a command of `exec` finds in its environment, what it does not, and how its exit code is passed on."""

import errno
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from support.fakes import NOW, Run, jwt, token

from vault_plugin import process as runner
from vault_plugin.broker import Grant, GrantedToken
from vault_plugin.errors import OutputError, UsageError
from vault_plugin.output import token_files
from vault_plugin.process import NotFoundError, NotRunError, run, supervise
from vault_plugin.settings import Settings
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind

SETTINGS = Settings(user_id="26", company_name="Acme", url="https://api.example", vault_addr=("https://v",))
ACCESS, BOTH = (Kind.ACCESS,), (Kind.ACCESS, Kind.REFRESH)
CREDENTIALS = [
    f"{variable}{suffix}"
    for variable in (
        *(
            "KLEARSTACK_USER_ID",
            "KLEARSTACK_COMPANY_NAME",
            "BAO_TOKEN",
            "VAULT_TOKEN",
            "BAO_JWT",
            "VAULT_JWT",
        ),
        *("BAO_ROLE_ID", "VAULT_ROLE_ID", "BAO_SECRET_ID", "VAULT_SECRET_ID"),
        *("BAO_WRAPPED_SECRET_ID", "VAULT_WRAPPED_SECRET_ID", "BAO_PASSWORD", "VAULT_PASSWORD"),
        *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"),
        *("BAO_PROXY_ADDR", "VAULT_PROXY_ADDR", "BAO_HTTP_PROXY", "VAULT_HTTP_PROXY"),
    )
    for suffix in ("", "_FILE")
]
events: list[str] = []


class Became(BaseException):
    """Where the test's process would have become the command."""

    def __init__(self, program: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.program, self.command, self.environ = program, command, environ


class FakeBroker:
    def get(self, identity: Identity, kinds: Collection[Kind]) -> Grant:
        events.append("asked")
        return Grant({kind: GrantedToken(token(kind), None) for kind in kinds}, "vault", stale=False, now=NOW)


@contextmanager
def connect(settings: Settings) -> Iterator[FakeBroker]:
    yield FakeBroker()
    events.append("left")


@pytest.fixture(autouse=True)
def _a_broker_and_this_process_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    events.clear()
    monkeypatch.setattr(runner, "connect", connect)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(token_files, "MEMORY", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)
    }
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert list(tmp_path.iterdir()) == []  # no token stays behind


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execve", become)


def become(*arguments: object) -> NoReturn:
    events.append("became")
    raise Became(*arguments)  # type: ignore[arg-type]


def became(*command: str, kinds: Collection[Kind] = ACCESS, **how: object) -> Became:
    with pytest.raises(Became) as caught:
        run(command, SETTINGS, kinds, **how)  # type: ignore[arg-type]
    return caught.value


def restarted(*command: str, kinds: Collection[Kind] = ACCESS, **how: object) -> Became:
    """What the process that waits for this command is started with."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "execve", become)
        patched.setattr(sys, "orig_argv", ["python", "-m", "vault_plugin", "exec", "CANARY"])
        patched.setattr(sys, "argv", ["vault_plugin", "exec", "CANARY"])
        return became(*command, kinds=kinds, as_file=True, **how)


def supervised(*command: str, kinds: Collection[Kind] = ACCESS, **how: object) -> int:
    """The exit code of this command, whose waiting parent is this process, without a restart."""
    _, _, _, name, descriptor, *rest = restarted(*command, kinds=kinds, **how).command
    assert (name, rest) == ("supervise", list(command))
    return supervise(int(descriptor), command)


def sh(script: str, kinds: Collection[Kind] = ACCESS, **how: object) -> int:
    return supervised("sh", "-uc", script, kinds=kinds, **how)


@pytest.mark.usefixtures("becoming")
def test_the_process_becomes_the_command_after_it_has_left_vault() -> None:
    this = became("sh", "-c", "x y")
    assert (Path(this.program).name, this.command) == ("sh", ("sh", "-c", "x y"))
    assert events == ["asked", "left", "became"]


@pytest.mark.usefixtures("becoming")
def test_the_token_and_its_expiry_are_added_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "kept")
    monkeypatch.setenv("KLEARSTACK_URL", "https://kept.example")
    before = dict(os.environ)
    assert became("sh").environ == before | {
        "KLEARSTACK_ACCESS_TOKEN": jwt(),
        "KLEARSTACK_TOKEN_EXPIRATION": "2026-09-21T14:28:20Z",
    }
    assert os.environ == before


@pytest.mark.usefixtures("becoming")
def test_what_leads_to_a_token_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "CANARY")
    assert "CANARY" not in became("sh").environ.values()


def test_every_secret_setting_is_a_credential_that_is_known_here() -> None:
    secret = [one for one in Settings.origins.values() if one.secret]
    assert {name for one in secret for name in one.env} < set(CREDENTIALS)


@pytest.mark.usefixtures("becoming")
def test_pristine_is_nothing_but_the_token_and_its_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    this = became("sh", pristine=True)
    assert this.environ.keys() == {"KLEARSTACK_ACCESS_TOKEN", "KLEARSTACK_TOKEN_EXPIRATION"}
    assert this.program.startswith("/")  # found in our PATH, for it has none


@pytest.mark.usefixtures("becoming")
def test_the_refresh_token_comes_on_request() -> None:
    both = became("sh", kinds=BOTH, pristine=True).environ
    refresh = became("sh", kinds=(Kind.REFRESH,), pristine=True).environ
    assert refresh == {
        "KLEARSTACK_REFRESH_TOKEN": jwt("refresh", exp=NOW + 900),
        "KLEARSTACK_REFRESH_TOKEN_EXPIRATION": "2026-09-21T14:28:20Z",
    }
    assert both.keys() == refresh.keys() | {"KLEARSTACK_ACCESS_TOKEN", "KLEARSTACK_TOKEN_EXPIRATION"}


@pytest.mark.usefixtures("becoming")
def test_the_variable_may_have_another_name_even_that_of_a_credential() -> None:
    for name in ("MY_TOKEN_2", "_t", "VAULT_TOKEN"):
        assert became("sh", variable=name, pristine=True).environ == {
            name: jwt(),
            "KLEARSTACK_TOKEN_EXPIRATION": "2026-09-21T14:28:20Z",
        }


@pytest.mark.parametrize("name", ["", "2A", "A-B", "A=B", "A B", "Ä", "A\n"])
def test_an_invalid_variable_name_is_refused_before_any_request(name: str) -> None:
    with pytest.raises(UsageError, match="--env") as caught:
        run(("sh",), SETTINGS, ACCESS, variable=name)
    assert events == []
    assert not name or name not in str(caught.value).replace("--env takes one name (letters", "")


def test_one_name_is_not_enough_for_two_tokens() -> None:
    with pytest.raises(UsageError, match="one token"):
        run(("sh",), SETTINGS, BOTH, variable="NAME")


@pytest.mark.parametrize("name", ["no-such-command-anywhere", ""])
def test_a_missing_command_is_reported_before_any_request(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # what lies here is none
    for command in (name, Path(__file__).name):
        with pytest.raises(NotFoundError) as caught:
            run((command,), SETTINGS, ACCESS)
        assert (caught.value.exit_code, events) == (127, [])


@pytest.mark.parametrize("as_file", [False, True])
def test_a_path_that_leads_nowhere_exits_127_and_one_that_cannot_be_run_126(as_file: bool) -> None:
    for path, error in (("/no/such", NotFoundError), (__file__, NotRunError), ("/etc/passwd/x", NotRunError)):
        with pytest.raises(NotRunError) as caught:
            run((path,), SETTINGS, ACCESS, as_file=as_file)
        assert (type(caught.value), path in str(caught.value), events) == (error, False, [])
    assert (NotFoundError.exit_code, NotRunError.exit_code) == (127, 126)


@pytest.mark.parametrize("code", [0, 1, 78, 126, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    assert sh(f"exit {code}") == code
    assert events == ["asked", "left", "became"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE])
def test_a_command_that_a_signal_ended_exits_128_and_its_number(number: int) -> None:
    assert sh(f"kill -{number} $$") == 128 + number


def test_a_file_of_our_own_holds_the_bare_token_and_the_environment_its_path(tmp_path: Path) -> None:
    copy = tmp_path.parent / "copy"
    script = f"""
        stat -c %a "$KLEARSTACK_ACCESS_TOKEN_FILE" >{copy}; cat "$KLEARSTACK_ACCESS_TOKEN_FILE" >>{copy}
        echo >>{copy}; stat -c %a "$(dirname "$KLEARSTACK_ACCESS_TOKEN_FILE")" >>{copy}; env >>{copy}
    """
    assert sh(script) == 0
    mode, text, folders_mode, *environ = copy.read_text().splitlines()
    assert (mode, text, folders_mode) == ("600", jwt(), "700")
    assert "KLEARSTACK_TOKEN_EXPIRATION=2026-09-21T14:28:20Z" in environ
    assert not any(jwt() in line for line in environ)


def test_each_token_has_a_file_of_its_own() -> None:
    script = 'exec cmp -s "$KLEARSTACK_ACCESS_TOKEN_FILE" "$KLEARSTACK_REFRESH_TOKEN_FILE"'
    assert sh(script, BOTH) == 1
    assert sh(script.replace("REFRESH", "ACCESS"), BOTH) == 0


def test_the_name_that_was_given_is_that_of_the_path(tmp_path: Path) -> None:
    assert sh('test -s "$HERE" && test -z "${KLEARSTACK_ACCESS_TOKEN_FILE-}"', variable="HERE") == 0


def test_a_command_may_remove_the_file_itself() -> None:
    assert sh('rm "$KLEARSTACK_ACCESS_TOKEN_FILE"') == 0
    assert sh('rm -r "$(dirname "$KLEARSTACK_ACCESS_TOKEN_FILE")"') == 0


def test_where_no_file_can_be_made_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(token_files, "MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError) as caught:
        sh(f"touch {tmp_path}/ran")
    assert (jwt() in str(caught.value), events) == (False, [])


def test_a_file_that_vanished_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECK_FILES_EVERY", 0.01)
    wait = 'until test -s "$KLEARSTACK_ACCESS_TOKEN_FILE"; do sleep 0.01; done'
    assert sh(f'rm "$KLEARSTACK_ACCESS_TOKEN_FILE"; {wait}; exit 5') == 5
    assert sh(f'rm -r "$(dirname "$KLEARSTACK_ACCESS_TOKEN_FILE")"; {wait}; exit 6') == 6


def alone(case: Callable[[], int]) -> int:
    """What it returns in a process of one thread: a signal to this one might end any other thread's test, and so us."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # from Python 3.12 on, to fork beside other threads
        child = os.fork()
    if child == 0:
        code = 70
        try:
            code = case()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_signal_to_us_is_passed_on() -> None:
    assert alone(lambda: sh("trap 'exit 9' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done")) == 9


def signalled_before_its_start(number: signal.Signals) -> int:
    """The exit code if this signal arrives before the command, which exits with 9, has started."""
    this = restarted("sh", "-c", "exit 9")
    signal.raise_signal(number)
    return supervise(int(this.command[4]), ("sh", "-c", "exit 9"))


def test_a_signal_before_the_command_starts_ends_without_it() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        assert alone(partial(signalled_before_its_start, number)) == 128 + number, number


def test_the_lowest_number_of_several_signals_is_in_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    monkeypatch.setattr(signal, "sigpending", lambda: arrived)
    assert sh("exit 9") == 128 + signal.SIGINT


def test_a_signal_that_the_command_would_ignore_or_block_does_not_prevent_its_start() -> None:
    def ignored() -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return signalled_before_its_start(signal.SIGINT)

    def blocked() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        return signalled_before_its_start(signal.SIGINT)

    for case in (ignored, blocked):
        assert alone(case) == 9, case


def test_a_command_that_may_not_be_signalled_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(process: int, number: int) -> NoReturn:
        events.append("tried")
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert alone(lambda: sh("kill -USR1 $PPID; sleep 0.2; exit 3") + 10 * events.count("tried")) == 13


def test_a_caller_that_ignores_sigchld_does_not_block_the_wait() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    assert sh("sleep 0.1; exit 5") == 5


def test_the_parent_that_waits_is_started_without_what_we_got_the_token_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "CANARY")
    this = restarted("sh", "-c", "x y")
    os.close(int(this.command[4]))
    assert this.program == sys.executable
    assert this.command[1:] == ["-m", "vault_plugin", "supervise", this.command[4], "sh", "-c", "x y"]
    assert "CANARY" not in this.environ.values()
    assert not any(jwt() in text for text in (*this.command, *this.environ.values()))


def test_a_pristine_command_has_nothing_of_the_waiting_parents_environment(tmp_path: Path) -> None:
    copy = tmp_path.parent / "copy"
    assert supervised("/usr/bin/env", "sh", "-c", f"/usr/bin/env >{copy}", pristine=True) == 0
    names = {one.partition("=")[0] for one in copy.read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "KLEARSTACK_ACCESS_TOKEN_FILE",
        "KLEARSTACK_TOKEN_EXPIRATION",
    }


@pytest.mark.parametrize("plan", [b"", b"CANARY", b"[]", b"{}"])
def test_the_hidden_command_cannot_be_started_by_users(plan: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, plan)
    os.close(writing)
    with pytest.raises(UsageError, match="Only `exec --as-file`") as caught:
        supervise(reading, ("true",))
    assert "CANARY" not in str(caught.value)


def test_a_pipe_that_cannot_hold_the_plan_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _, data: len(data) - 1)
    with pytest.raises(OutputError, match="does not fit into a pipe"):
        run(("true",), SETTINGS, ACCESS, as_file=True)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_program_that_cannot_be_started_exits_126(monkeypatch: pytest.MonkeyPatch, as_file: bool) -> None:
    def execve(*_: object) -> NoReturn:
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(NotRunError, match="too long"):
        run(("true",), SETTINGS, ACCESS, as_file=as_file)


def test_a_program_that_is_no_program_exits_126_below_the_waiting_parent(tmp_path: Path) -> None:
    path = tmp_path.parent / "nothing"
    path.write_bytes(b"")
    path.chmod(0o700)
    with pytest.raises(NotRunError, match="Exec format error"):
        supervised(str(path))


def test_a_signal_that_a_process_sends_is_passed_on_and_one_of_the_terminal_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = iter([(0, signal.SIGUSR1), (128, signal.SIGINT), (128, signal.SIGHUP)])
    sent: list[tuple[int, int]] = []

    def sigtimedwait(_numbers: object, _seconds: float) -> SimpleNamespace | None:
        time.sleep(0.01)
        return next((SimpleNamespace(si_code=code, si_signo=number) for code, number in came), None)

    monkeypatch.setattr(signal, "sigtimedwait", sigtimedwait)
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    monkeypatch.setattr(runner, "CHECK_FILES_EVERY", 0.01)
    assert sh("sleep 0.3; exit 3") == 3
    assert [number for _, number in sent] == [signal.SIGUSR1, signal.SIGHUP]


def test_on_the_command_line_no_request_is_sent_for_a_missing_command(
    on_the_command_line: Run,
) -> None:
    for argv, code in (
        (("exec", "no-such-command"), 127),
        (("exec", "--user-id", "-", "true"), 64),
        (("supervise", "999", "true"), 64),
    ):
        assert on_the_command_line(*argv).code == code
    assert events == []


@pytest.fixture
def on_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, text in (
        ("KLEARSTACK_USER_ID", "26"),
        ("KLEARSTACK_COMPANY_NAME", "Acme"),
        ("KLEARSTACK_URL", "https://api.example"),
        ("VAULT_ADDR", "https://vault.example"),
        ("VAULT_TOKEN", "hvs.x"),
    ):
        monkeypatch.setenv(name, text)
    return run
