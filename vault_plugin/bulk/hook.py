"""The command that `watch` runs after token files have changed (--on-change)."""

import logging
import os
import shlex
import subprocess
import threading
from queue import SimpleQueue
from typing import Self

from vault_plugin import children
from vault_plugin.errors import UsageError
from vault_plugin.settings.credentials import without_credentials

TIMEOUT = 60.0  # seconds for one run
GRACE = 2.0  # seconds that a run has to finish when `watch` ends
_log = logging.getLogger(__name__)


class Hook:
    """Runs the command: one run at a time, and one for all changes in the meantime.

    Raises UsageError if the command is invalid.
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError:  # an unterminated quote
            self._command = []
        if not self._command:
            raise UsageError("--on-change takes a command, quoted as for a shell.")
        try:
            children.program(self._command[0])
        except OSError as exc:
            raise UsageError(
                f"--on-change names {self._command[0]}, which cannot be run ({exc.strerror})."
            ) from None
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False: the end
        self._worker = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(False)
        self._worker.join(GRACE)

    def call(self) -> None:
        """Request a run."""
        self._calls.put(True)

    def _work(self) -> None:
        going_on = True
        while going_on:
            calls = [self._calls.get()]
            while not self._calls.empty():
                calls.append(self._calls.get())
            going_on = all(calls)
            if any(calls):
                self._run()

    def _run(self) -> None:
        try:
            code = children.run(self._command, without_credentials(os.environ), TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as exc:
            _log.warning("the --on-change command did not finish (%s)", type(exc).__name__)
        else:
            if code:
                _log.warning("the --on-change command exited with code %d", code)
