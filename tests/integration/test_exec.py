"""`klearstack-vault exec` as a process: what its command inherits, how signals and its end get through, what leaks."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import COMMAND, World
from support.cli import run as command
from support.leaks import leaked, watched_processes
from support.waiting import until

PATIENCE = 60  # seconds that a real wait may take before the test has failed
SIGNALS = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"]


@pytest.fixture(params=[(), ("--as-file",)], ids=["replaced", "supervised"])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The two ways in which a command is run; most of what is promised holds for both."""
    options: tuple[str, ...] = request.param
    return options


@pytest.fixture(autouse=True)
def _no_file_stays_behind(kv2: World) -> Iterator[None]:
    folder = kv2.home / "tmp"
    folder.mkdir()
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def stored(kv2: World) -> None:
    """A token that is stored already, so that each process has less to do."""
    kv2.store()


def environ(world: World, **more: str) -> dict[str, str]:
    return world.environ | {"TMPDIR": str(world.home / "tmp")} | more


def run(world: World, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return command("exec", *arguments, environ=environ(world, **more), stdin=stdin)


@contextmanager
def running(world: World, script: str, *options: str, new: str = "") -> Iterator[subprocess.Popen[str]]:
    """A shell that runs this script below `exec`, after its first line; `new`: a session or a group of its own."""
    with subprocess.Popen(
        [*COMMAND, "exec", *options, "--", "bash", "-c", script],
        env=environ(world),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0 if new == "group" else None,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def state(process: int) -> str:
    """What the kernel says that it is doing: `S` waits, `T` is stopped."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


def test_the_command_has_the_token_and_our_streams_and_we_say_nothing(
    kv2: World, way: tuple[str, ...]
) -> None:
    script = 'cat; echo "$KLEARSTACK_ACCESS_TOKEN${KLEARSTACK_ACCESS_TOKEN_FILE:+$(cat $KLEARSTACK_ACCESS_TOKEN_FILE)}"; echo err >&2'
    done = run(kv2, *way, "--", "sh", "-c", script, stdin="in\n")
    assert (done.returncode, done.stderr) == (0, "err\n")
    assert done.stdout == f"in\n{kv2.endpoint.issued[1]}\n"


def test_the_end_that_is_told_is_the_true_one(kv2: World) -> None:
    kv2.store()
    answer = kv2.get()
    done = run(kv2, "--", "printenv", "KLEARSTACK_TOKEN_EXPIRATION")
    assert done.stdout.strip() == answer["expires_at"]


def test_what_leads_to_a_token_is_gone_and_the_rest_is_there(kv2: World, way: tuple[str, ...]) -> None:
    shown = run(kv2, *way, "--", "env", OTHER="kept", VAULT_JWT="x", BAO_ROLE_ID_FILE=os.devnull).stdout
    names = {one.partition("=")[0] for one in shown.splitlines()}
    assert {"PATH", "HOME", "OTHER", "VAULT_ADDR", "KLEARSTACK_URL"} <= names
    gone = {
        *("VAULT_TOKEN", "VAULT_JWT", "BAO_ROLE_ID_FILE", "KLEARSTACK_USER_ID", "KLEARSTACK_COMPANY_NAME"),
    }
    assert not gone & names
    assert kv2.vault.root_token not in shown


def test_pristine_is_the_token_and_its_end_alone(kv2: World) -> None:
    shown = run(kv2, "--pristine", "--token", "both", "--", "env").stdout
    assert sorted(one.partition("=")[0] for one in shown.splitlines()) == [
        "KLEARSTACK_ACCESS_TOKEN",
        "KLEARSTACK_REFRESH_TOKEN",
        "KLEARSTACK_REFRESH_TOKEN_EXPIRATION",
        "KLEARSTACK_TOKEN_EXPIRATION",
    ]
    assert all(token in shown for token in kv2.endpoint.issued)


@pytest.mark.usefixtures("stored")
def test_options_after_the_command_are_the_commands_even_without_the_dashes(kv2: World) -> None:
    assert run(kv2, "--env", "X", "printenv", "--null", "X").stdout == f"{kv2.endpoint.issued[1]}\0"
    assert run(kv2, "echo", "-v", "--token", "--", "--help").stdout == "-v --token -- --help\n"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("exit 64", 64)]
)
def test_the_exit_code_is_the_commands(kv2: World, way: tuple[str, ...], script: str, code: int) -> None:
    done = run(kv2, *way, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.usefixtures("stored")
def test_a_signal_that_ends_the_command_is_128_and_its_number_to_a_shell(
    kv2: World, way: tuple[str, ...]
) -> None:
    command = [*COMMAND, "exec", *way, "--", "bash", "-c", "kill -9 $$"]
    shell = ["bash", "-c", '"$@"; echo $?', "bash", *command]
    done = subprocess.run(shell, env=environ(kv2), capture_output=True, text=True, check=True)
    assert done.stdout == "137\n"


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/no/such", 127), ("/etc", 126), ("script", 127)]
)
def test_a_command_that_cannot_be_run_exits_as_in_a_shell(
    kv2: World, way: tuple[str, ...], command: str, code: int
) -> None:
    if command == "script":
        script = kv2.home / command
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        command = str(script)
    done = run(kv2, *way, "--", command)
    assert kv2.endpoint.requests == 0
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("klearstack-vault: ")
    assert leaked(kv2, kv2.endpoint, done.stderr) == []


@pytest.mark.parametrize(
    ("arguments", "more", "code"),
    [
        ((), {}, 64),
        (("--env", "A-B", "--", "touch", "ran"), {}, 64),
        (("--user-id", "-", "--", "touch", "ran"), {}, 64),
        (("--", "touch", "ran"), {"KLEARSTACK_URL": ""}, 78),
        (("--", "touch", "ran"), {"VAULT_ADDR": "http://127.0.0.1:9"}, 69),
        (("--", "touch", "ran"), {"VAULT_TOKEN": "wrong"}, 77),
    ],
)
def test_without_a_token_nothing_runs(
    kv2: World, tmp_path: Path, arguments: tuple[str, ...], more: dict[str, str], code: int
) -> None:
    arguments = tuple(str(tmp_path / "ran") if one == "ran" else one for one in arguments)
    done = run(kv2, *arguments, stdin="26\n", **more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("stored")
def test_open_descriptors_masks_and_ignored_signals_are_as_we_got_them(
    kv2: World, way: tuple[str, ...]
) -> None:
    script = '"$@" grep -h "^Sig[BI]" /proc/self/status; "$@" cat <(echo passed)'
    done = subprocess.run(
        ["bash", "-c", f'trap "" USR2; {script}', "bash", *COMMAND, "exec", *way, "--"],
        env=environ(kv2),
        capture_output=True,
        text=True,
        check=True,
    )
    blocked, ignored, passed = done.stdout.splitlines()
    assert (int(blocked.split()[1], 16), passed) == (0, "passed")
    standard = (
        int(ignored.split()[1], 16) & 0x7FFF_FFFF
    )  # glibc's posix_spawn ignores two of its own beyond these
    assert standard == 1 << (signal.SIGUSR2 - 1)


@pytest.mark.usefixtures("stored")
def test_signals_reach_the_command_which_decides(kv2: World, way: tuple[str, ...]) -> None:
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in SIGNALS)
    last = """trap 'trap "exit 7" TERM; echo TERM' TERM"""
    with running(kv2, f"{traps}; {last}; echo ready; while :; do sleep 0.01; done", *way) as process:
        assert line(process) == "ready\n"
        for name in SIGNALS:
            process.send_signal(signal.Signals[f"SIG{name}"])
            assert line(process) == f"{name}\n"
        process.terminate()
        assert process.wait(PATIENCE) == 7


@pytest.mark.usefixtures("stored")
def test_a_token_file_goes_when_a_signal_ends_the_command(kv2: World) -> None:
    script = 'echo "$KLEARSTACK_ACCESS_TOKEN_FILE"; exec sleep 60'
    with running(kv2, script, "--as-file") as process:
        path = Path(line(process).strip())
        assert path.read_text() == kv2.endpoint.issued[1]
        assert path.stat().st_mode & 0o777 == 0o600
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert not path.parent.exists()


@pytest.mark.usefixtures("stored")
def test_no_zombie_waits_beside_the_command(kv2: World) -> None:
    with running(kv2, "echo $$; exec sleep 60", "--as-file") as process:
        command = int(line(process))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children == [str(command)]
        process.terminate()
        process.wait(PATIENCE)
        assert not Path(f"/proc/{command}").exists()


@pytest.mark.usefixtures("stored")
def test_without_a_file_the_command_has_our_process_and_nobody_waits_beside_it(kv2: World) -> None:
    with running(kv2, "echo $$; exec sleep 60") as process:
        assert int(line(process)) == process.pid


@pytest.mark.usefixtures("stored")
def test_ctrl_z_stops_both_and_both_go_on(kv2: World) -> None:
    script = "trap 'exit 4' TERM; echo $$; while :; do sleep 0.05; done"
    with running(kv2, script, "--as-file", new="group") as process:
        command = int(line(process))
        os.killpg(process.pid, signal.SIGTSTP)  # as a terminal does
        until(lambda: state(process.pid) == state(command) == "T")
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        assert process.wait(PATIENCE) == 4


@contextmanager
def on_a_terminal(world: World, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`exec` as the first process of a session that has a terminal, once its command is `ready`; and that terminal."""
    terminal, name = os.openpty()
    # The first process of a session has the first terminal that it opens for its own.
    shell = ["bash", "-c", 'exec "$@" <"$0" >"$0"', os.ttyname(name)]
    with subprocess.Popen(
        [*shell, *COMMAND, "exec", *arguments], env=environ(world), start_new_session=True
    ) as process:
        try:
            shown_until(terminal, b"ready")
            os.close(name)
            yield process, terminal
        finally:
            process.kill()


def shown_until(terminal: int, wanted: bytes) -> bytes:
    """All that it shows, to this text."""
    shown = b""
    while wanted not in shown:
        assert select.select([terminal], [], [], PATIENCE)[0], shown
        shown += os.read(terminal, 1000)
    return shown


COUNTING = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
count = 0
while signal.sigtimedwait([signal.SIGINT], 1.5 if count else 30):
    count += 1
print(count, "times")
"""


@pytest.mark.usefixtures("stored")
def test_ctrl_c_reaches_the_command_once(kv2: World, way: tuple[str, ...]) -> None:
    with on_a_terminal(kv2, *way, "--", sys.executable, "-c", COUNTING) as (process, terminal):
        os.write(terminal, b"\x03")
        assert b"1 times" in shown_until(terminal, b"times")
        assert process.wait(PATIENCE) == 0
        os.close(terminal)


@pytest.mark.usefixtures("stored")
def test_the_end_of_a_terminal_reaches_the_command(kv2: World, way: tuple[str, ...]) -> None:
    script = "trap 'exit 3' HUP; echo ready; while :; do sleep 0.05; done"
    with on_a_terminal(kv2, *way, "--", "bash", "-c", script) as (process, terminal):
        os.close(terminal)
        assert process.wait(PATIENCE) == 3


def test_a_login_of_ours_is_over_before_the_command_starts(kv2: World, way: tuple[str, ...]) -> None:
    role_id, secret_id, accessors = kv2.vault.approle(f"""
        path "{kv2.mount}/data/*"     {{ capabilities = ["update", "read"] }}
        path "{kv2.mount}/metadata/*" {{ capabilities = ["create", "update"] }}
    """)
    before = accessors()
    login = {"KLEARSTACK_VAULT_AUTH": "approle", "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
    with subprocess.Popen(
        [*COMMAND, "exec", *way, "--", "sh", "-c", "env; exec sleep 60"],
        env=environ(kv2, **login),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        shown = ""
        for one in process.stdout:
            shown += one
            if one.startswith("KLEARSTACK_TOKEN_EXPIRATION="):
                break
        assert accessors() <= before
        process.terminate()
        shown += process.communicate(timeout=PATIENCE)[0]
    assert not {role_id, secret_id} & set(shown.replace("\n", "=").split("="))


def test_neither_process_lists_nor_standard_error_show_a_secret(kv2: World, way: tuple[str, ...]) -> None:
    with watched_processes() as lines:
        done = run(kv2, *way, "-vv", "--token", "both", "--", "sleep", "1")
    assert (done.returncode, done.stdout) == (0, "")
    listed = b"\n".join(lines).decode(errors="replace")
    assert "sleep" in listed
    assert leaked(kv2, kv2.endpoint, listed + done.stderr) == []
