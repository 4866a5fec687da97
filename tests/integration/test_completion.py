"""Tab completion in a real bash."""

import os
import pty
import select
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMPLETE = "_KLEARSTACK_VAULT_COMPLETE"


class Terminal:
    """An interactive bash in which completion is set up, as docs/commands.md says."""

    def __init__(self, folder: Path) -> None:
        (folder / "klearstack-vault").write_text(
            f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m vault_plugin "$@"\n'
        )
        (folder / "klearstack-vault").chmod(0o700)
        (folder / "identities.yaml").touch()
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            known = {
                "PATH": f"{folder}:{os.environ['PATH']}",
                "PS1": "$ ",
                "TERM": "dumb",
                "HOME": str(folder),
            }
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], known)
        self.pid = pid
        self.shown = ""
        self.type(f'eval "$({COMPLETE}=bash_source klearstack-vault)"; echo re""ady\n', "ready")

    def type(self, keys: str, expected: str) -> None:
        """Type and wait until the terminal shows that. Raises AssertionError after 20 seconds."""
        start, limit = len(self.shown), time.monotonic() + 20
        os.write(self._terminal, keys.encode())
        while expected not in self.shown[start:]:
            assert select.select([self._terminal], [], [], max(0.0, limit - time.monotonic()))[0], self.shown
            self.shown += os.read(self._terminal, 4096).decode()

    def close(self) -> None:
        os.close(self._terminal)  # which ends the shell by SIGHUP
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_bash_completes_commands_options_values_and_files(terminal: Terminal) -> None:
    terminal.type("klearstack-vault sy\t", "klearstack-vault sync ")
    terminal.type("--det\t", "--detailed-exitcode ")
    terminal.type("id\t", "identities.yaml ")
