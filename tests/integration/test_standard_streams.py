"""What processes do whose standard streams are closed, full, non-blocking or endless."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.devices import device
from support.series import series

INSTALLED = "from vault_plugin.output import streams; streams.install(); import sys, os; "
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


CLOSED = b"klearstack-vault: Standard output cannot be written (it is closed).\n"


def test_a_closed_standard_output_is_74_where_the_result_goes_there(tmp_path: Path) -> None:
    for arguments, done in zip(TALKERS, series(tmp_path, TALKERS, ">&-"), strict=True):
        assert done == (74, b"", CLOSED), arguments


def test_one_that_is_open_for_reading_only_is_closed_for_us(tmp_path: Path) -> None:
    (done,) = series(tmp_path, [("get",)], "1<&0")
    assert done == (74, b"", CLOSED)


def test_it_may_be_closed_where_nothing_goes_there_and_the_first_failure_tells_the_exit_code(
    tmp_path: Path,
) -> None:
    commands = [
        ("helper", "git", "store"),
        ("get", "--output", "x"),
        ("exec", "true"),
        ("get", "--format", "json", "--output", "x"),
    ]
    assert [done.code for done in series(tmp_path, commands, ">&-")] == [0, 78, 78, 78]


@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null"], ids=["closed", "write-only"])
def test_a_closed_standard_input_is_76_where_a_query_is_read(redirection: str, tmp_path: Path) -> None:
    commands = [("terraform",), ("helper", "bazel", "get"), ("helper", "git", "get")]
    for arguments, done in zip(commands, series(tmp_path, commands, redirection), strict=True):
        assert (done.code, done.out) == (76, b""), arguments
        assert done.err.startswith(b"klearstack-vault: Standard input cannot be read ("), arguments


EXIT_CODES: dict[tuple[str, ...], int] = {
    ("get",): 78,
    ("gte",): 64,
    (): 64,
    ("sync", "no.yaml"): 78,
    ("watch", "no.yaml"): 78,
    ("--version",): 0,
}


@pytest.mark.parametrize("kind", ["full", "closed", "broken"])
def test_a_standard_error_that_takes_nothing_changes_no_exit_code(kind: str, tmp_path: Path) -> None:
    if kind == "full":
        ended = series(tmp_path, [*EXIT_CODES], f"2>{device(tmp_path, 'full')}")
    elif kind == "closed":
        ended = series(tmp_path, [*EXIT_CODES], "2>&-")
    else:  # a pipe without a reader
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ended = series(tmp_path, [*EXIT_CODES], stderr=writing)
        finally:
            os.close(writing)
    assert dict(zip(EXIT_CODES, (done.code for done in ended), strict=True)) == EXIT_CODES


def test_the_encoding_of_python_changes_nothing_that_is_printed_or_told_of_errors(tmp_path: Path) -> None:
    commands = [*PRINTERS[1:3], ("get",)]
    plain = series(tmp_path, commands)
    assert [bool(done.out) for done in plain] == [True, True, False]
    assert [bool(done.err) for done in plain] == [False, False, True]
    for encoding in ("utf-16", "ascii:strict"):
        assert series(tmp_path, commands, PYTHONIOENCODING=encoding) == plain


def script(code: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", INSTALLED + code], stderr=subprocess.PIPE, check=False, timeout=60, **how
    )


AS_IT_WAITS = """
def first(*given):
    streams._wait = wait
    os.write(2, b"full\\n")
    wait(*given)

wait, streams._wait = streams._wait, first
"""


@pytest.mark.usefixtures("measured")
def test_a_pipe_that_is_non_blocking_gets_all_of_it() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = "print('x' * 300_000); print(sys.stdout.isatty(), sys.stdout.fileno(), file=sys.stderr)"
    command = [sys.executable, "-c", INSTALLED + AS_IT_WAITS + code]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.readline() == b"full\n"
        counted = subprocess.run(["wc", "-c"], stdin=reading, capture_output=True, timeout=60, check=True)
        os.close(reading)
        assert process.communicate(timeout=60)[1] == b"False 1\n"
    assert counted.stdout == b"300001\n"


@pytest.mark.usefixtures("measured")
def test_a_query_on_a_non_blocking_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    feeder = f"import os, time; [(time.sleep(0.05), os.write({writing}, b'abc')) for _ in range(3)]"
    code = "from math import inf; from vault_plugin.timing.deadline import Deadline; "
    code += "print(streams.read_query(100, Deadline(inf)))"
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


ENDLESS = [
    (("terraform",), 76),
    (("helper", "bazel", "get"), 76),
    (("helper", "git", "get"), 76),
    (("helper", "git", "erase"), 76),
    (("helper", "git", "get", "--deadline", "0.1s"), 76),
    (("get", "--user-id", "-"), 78),
    (("sync", "--deadline", "0.1s", "-"), 78),
    (("status", "--deadline", "0.1s", "-"), 78),
]


def test_a_standard_input_that_never_ends_is_an_error_at_the_deadline_before_any_request(
    tmp_path: Path,
) -> None:
    """No Vault and no endpoint is given, which would be 78: that is looked at later, and a request comes last."""
    os.mkfifo(tmp_path / "endless")
    commands = [arguments for arguments, _ in ENDLESS]
    ended = series(tmp_path, commands, f"0<>{tmp_path / 'endless'}", KLEARSTACK_DEADLINE="0.1")
    for (arguments, code), done in zip(ENDLESS, ended, strict=True):
        assert (done.code, done.out) == (code, b""), arguments
        assert b"standard input" in done.err, arguments
        assert b"before the deadline passed" in done.err, arguments


@pytest.mark.usefixtures("measured")
def test_a_closed_standard_output_is_told_by_a_process_of_its_own() -> None:
    code = "streams.require_output()"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", INSTALLED + code],
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(b"WriteError: Standard output cannot be written (it is closed).\n")
