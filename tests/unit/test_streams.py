"""What is printed are bytes to the descriptor; whether it can be printed decides the exit code only where it must."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import COMMAND
from support.devices import device

from vault_plugin import streams
from vault_plugin.errors import QueryError, WriteError

INSTALLED = "from vault_plugin import streams; streams.install(); import sys, os; "
PRINTERS = [("--version",), ("--help",), ("get", "--help"), ("watch", "-h"), ("simulate", "--fault", "list")]
# They need a standard output, and say so before anything else is looked at.
TALKERS = [
    *PRINTERS,
    ("get",),
    ("get", "--format", "github"),
    ("sync", "no-such-file.yaml"),
    ("terraform",),
    ("helper", "exec-credential"),
    ("helper", "bazel", "get"),
    ("helper", "git", "get"),
    ("demo",),
    ("simulate",),
]


def shell(redirection: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """`klearstack-vault` with standard streams that a shell has redirected."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *arguments],
        env=os.environ | environ,
        input=b"{}",
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", TALKERS, ids=" ".join)
def test_a_closed_standard_output_is_74_where_the_result_goes_there(arguments: tuple[str, ...]) -> None:
    done = shell(">&-", *arguments)
    assert (done.returncode, done.stderr) == (
        74,
        b"klearstack-vault: Standard output cannot be written (it is closed).\n",
    )


def test_one_that_is_open_for_reading_only_is_closed_for_us() -> None:
    assert shell("1<&0", "get").returncode == 74


@pytest.mark.parametrize(
    "arguments", [("helper", "git", "store"), ("get", "--output", "x"), ("exec", "true")]
)
def test_it_may_be_closed_where_nothing_goes_there(arguments: tuple[str, ...]) -> None:
    assert shell(">&-", *arguments).returncode == (0 if arguments[0] == "helper" else 78)


def test_the_first_failure_tells_the_exit_code() -> None:
    assert shell(">&-", "get", "--format", "json", "--output", "x").returncode == 78


@pytest.mark.parametrize("arguments", [("terraform",), ("helper", "bazel", "get"), ("helper", "git", "get")])
@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null"], ids=["closed", "write-only"])
def test_a_closed_standard_input_is_76_where_a_query_is_read(
    arguments: tuple[str, ...], redirection: str
) -> None:
    done = shell(redirection, *arguments)
    assert (done.returncode, done.stdout) == (76, b"")
    assert done.stderr.startswith(b"klearstack-vault: Standard input cannot be read (")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("get",), 78),
        (("gte",), 64),
        ((), 64),
        (("sync", "no.yaml"), 78),
        (("watch", "no.yaml"), 78),
        (("--version",), 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["full", "closed", "broken"])
def test_a_standard_error_that_takes_nothing_changes_no_exit_code(
    arguments: tuple[str, ...], code: int, kind: str, tmp_path: Path
) -> None:
    if kind == "full":
        redirection = f"2>{device(tmp_path, 'full')}"
    else:
        redirection = "2>&-" if kind == "closed" else "2>&1 | true"
    done = shell(redirection, *arguments) if kind != "broken" else broken(*arguments)
    assert done.returncode == code


def broken(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """With a standard error that is a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=writing,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", PRINTERS[1:3], ids=" ".join)
def test_the_encoding_of_python_changes_nothing_that_is_printed(arguments: tuple[str, ...]) -> None:
    plain = shell("", *arguments)
    assert plain.stdout
    for encoding in ("utf-16", "ascii:strict"):
        assert shell("", *arguments, PYTHONIOENCODING=encoding).stdout == plain.stdout


def test_nor_what_is_told_of_errors() -> None:
    assert shell("", "get", PYTHONIOENCODING="utf-16").stderr == shell("", "get").stderr


def script(code: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", INSTALLED + code], stderr=subprocess.PIPE, check=False, timeout=60, **how
    )


def test_a_pipe_that_is_non_blocking_gets_all_of_it() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = "print('x' * 300_000, file=sys.stdout); print(sys.stdout.isatty(), sys.stdout.fileno(), file=sys.stderr)"
    with subprocess.Popen(["wc", "-c"], stdin=reading, stdout=subprocess.PIPE) as counter:
        os.close(reading)
        done = script(code, stdout=writing)
        os.close(writing)
        assert done.stderr == b"False 1\n"
        assert counter.communicate(timeout=60)[0] == b"300001\n"


def test_a_query_on_a_non_blocking_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    feeder = f"import os, time; [(time.sleep(0.05), os.write({writing}, b'abc')) for _ in range(3)]"
    code = "print(streams.read_query(100))"
    with subprocess.Popen([sys.executable, "-Sc", feeder], pass_fds=[writing]):
        os.close(writing)
        done = script(code, stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    assert (done.stdout, done.stderr) == (b"b'abcabcabc'\n", b"")


def test_a_closed_number_is_not_given_to_the_next_file_but_closed_for_other_programs(tmp_path: Path) -> None:
    code = "print(os.open(os.devnull, os.O_RDONLY), file=sys.stderr); os.execlp('sh', 'sh', '-c', 'echo x; true')"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- <&-', "sh", sys.executable, "-c", INSTALLED + code],
        stderr=subprocess.PIPE,
        check=False,
    )
    number, complaint = done.stderr.decode().splitlines()
    assert int(number) > 2
    assert "I/O error" in complaint or "Bad file" in complaint


def test_names_that_are_no_text_are_printed_as_their_bytes() -> None:
    assert script(r"print('\udcff')", stdout=subprocess.PIPE).stdout == b"\xff\n"


def test_in_another_program_the_streams_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    streams.require_output()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(QueryError, match="it is closed"):
        streams.read_query(1)


def test_what_a_full_disk_says_is_told(tmp_path: Path) -> None:
    with (
        device(tmp_path, "full").open("wb") as full,
        pytest.raises(WriteError, match="No space left on device"),
    ):
        streams._Output(full.fileno()).write(b"x")
