"""What is printed are bytes to the descriptor; whether it can be printed decides the exit code only where it must."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBADF
from pathlib import Path
from typing import NoReturn

import pytest
from support.devices import device

from vault_plugin.commands.options import MAX_LINE, line_of_stdin
from vault_plugin.errors import QueryError, SettingsError, WriteError
from vault_plugin.output import streams
from vault_plugin.timing.deadline import Deadline


def test_what_a_pipe_cannot_take_yet_is_written_when_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taken = []
    monkeypatch.setattr(streams, "_wait", lambda *_: taken.append(os.read(reading, 2**20)))
    assert streams._Descriptor(writing).write(b"x" * 300_000) == 300_000
    os.close(writing)
    while part := os.read(reading, 2**20):
        taken.append(part)
    os.close(reading)
    assert len(taken) > 1
    assert b"".join(taken) == b"x" * 300_000


def test_in_another_program_the_streams_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    streams.require_output()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(QueryError, match="it is closed"):
        streams.read_query(1, Deadline(60))


@contextmanager
def stdin_of(*sent: bytes, ends: bool = False) -> Iterator[int]:
    """A standard input that got so many parts, with the descriptor that the next ones are written to."""
    reading, writing = os.pipe()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(reading, encoding="ascii") as stdin:
        patch.setattr(sys, "stdin", stdin)
        for part in sent:
            os.write(writing, part)
        if ends:
            os.close(writing)
        try:
            yield writing
        finally:
            if not ends:
                os.close(writing)


@pytest.mark.parametrize("sent", [(), (b'{"user_id": ',)], ids=["nothing", "a part"])
def test_a_query_that_does_not_end_is_an_error_at_the_deadline(sent: tuple[bytes, ...]) -> None:
    with stdin_of(*sent), pytest.raises(QueryError, match="No complete query arrived on standard input"):
        streams.read_query(100, Deadline(0.05))


def test_a_query_as_long_as_it_may_be_needs_no_end() -> None:
    with stdin_of(b"abc"):
        assert streams.read_query(3, Deadline(60)) == b"abc"


def test_a_query_is_waited_for_longer_than_a_single_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        polls = 0

        def register(self, *_: int) -> None:
            pass

        def poll(self, milliseconds: float) -> list[int]:
            assert milliseconds <= 60_000
            self.polls += 1
            return [] if self.polls == 1 else [0]

    monkeypatch.setattr(streams, "poll", Impatient)
    with stdin_of(b"abc", ends=True):
        assert streams.read_query(100, Deadline(10**9)) == b"abc"


def test_what_another_process_has_read_meanwhile_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read, tries = os.read, iter([BlockingIOError()])

    def late(number: int, count: int) -> bytes:
        for error in tries:
            raise error
        return read(number, count)

    monkeypatch.setattr("vault_plugin.output.streams.os.read", late)
    with stdin_of(b"abc", ends=True):
        assert streams.read_query(100, Deadline(60)) == b"abc"


def test_a_line_is_read_without_what_follows_it() -> None:
    with stdin_of(b"27\nAcme\r\nxyz", ends=True):
        assert [streams.read_line(100, Deadline(60)) for _ in range(2)] == [b"27\n", b"Acme\r\n"]
        assert [streams.read_line(2, Deadline(60)) for _ in range(3)] == [b"xy", b"z", b""]
    with stdin_of(b"27"), pytest.raises(TimeoutError):
        streams.read_line(100, Deadline(0.05))
    with stdin_of(b"no end"), pytest.raises(SettingsError, match="did not arrive before the deadline passed"):
        line_of_stdin(Deadline(0.05))


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 5000])
def test_a_line_is_read_whole_or_not_at_all(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a user id would be another identity."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"7" * length + b"\nAcme\n")))
    if length < MAX_LINE:
        assert line_of_stdin(Deadline(60)) == "7" * length
    else:
        with pytest.raises(SettingsError, match="is longer than 64 KiB"):
            line_of_stdin(Deadline(60))


def test_what_a_full_disk_says_is_told(tmp_path: Path) -> None:
    with (
        device(tmp_path, "full").open("wb") as full,
        pytest.raises(WriteError, match="No space left on device"),
    ):
        streams._Output(full.fileno()).write(b"x")


def test_standard_error_takes_what_it_can_and_complains_of_nothing(tmp_path: Path) -> None:
    with device(tmp_path, "full").open("wb") as full, (tmp_path / "file").open("wb") as file:
        assert streams._Messages(full.fileno()).write(b"x") == 1
        assert streams._Messages(file.fileno()).write(b"x") == 1
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_standard_output_that_is_gone_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fcntl(*_: object) -> NoReturn:
        raise OSError(EBADF, "Bad file descriptor")

    monkeypatch.setattr("vault_plugin.output.streams.fcntl.fcntl", fcntl)
    with pytest.raises(WriteError, match="it is closed"):
        streams.require_output()
