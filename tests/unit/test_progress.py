"""The line that says how far a run is, and the messages that must not share it."""

import io
import logging
import sys

import pytest

from vault_plugin.commands import progress
from vault_plugin.commands.options import log_to_stderr
from vault_plugin.commands.progress import Progress


class Terminal(io.StringIO):
    """A terminal: what is written to it, and what it shows."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal. Not by a fixture: pytest sets its own again after those."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_message_has_a_line_of_its_own_and_the_bar_is_drawn_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    handler = log_to_stderr(1)
    handler.progress = line = Progress(1234)
    line.step()
    logging.getLogger("vault_plugin.fake").info("read")
    line.step()
    logging.getLogger("vault_plugin.fake").warning("late")
    line.end()
    logging.getLogger("vault_plugin.fake").warning("at the end")
    assert terminal.lines == [
        "klearstack-vault: INFO: read",
        "klearstack-vault: WARNING: late",
        f"[{'-' * 36}] 2 of 1,234 (0%)",
        "klearstack-vault: WARNING: at the end",
        "",
    ]


def test_it_is_drawn_from_time_to_time_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PERIOD", 1e9)
    line = Progress(50)
    for _ in range(50):
        line.step()
    assert terminal.getvalue().count("\r") == 1
    line.end()
    assert terminal.lines[0] == f"[{'#' * 36}] 50 of 50 (100%)"


def test_of_nothing_and_without_a_terminal_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    nothing = Progress(0)
    nothing.end()
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    line = Progress(2)
    line.step()
    with line.hidden():
        terminal.write("message\n")
    line.end()
    assert terminal.getvalue() == "message\n"
