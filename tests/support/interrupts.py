"""Interrupts around the start of a process, in moments that are too short to be met from outside."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vault_plugin.signals import handled


def interrupt_starts(monkeypatch: pytest.MonkeyPatch, *, during: bool) -> list[subprocess.Popen[bytes]]:
    """Interrupt each start by `signals.deferred`, during it or right after it; return the processes that are started."""
    processes: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)
            if during:
                signal.raise_signal(signal.SIGINT)

    @contextmanager
    def handled_until_interrupted(*arguments: Any) -> Iterator[None]:
        with handled(*arguments):
            yield
        if not during:
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    monkeypatch.setattr("vault_plugin.signals.handled", handled_until_interrupted)
    return processes
