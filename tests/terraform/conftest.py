"""Terraform, once per run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.terraform import Terraform, prepare

_used: list[str] = []


@pytest.fixture(scope="session")
def terraform() -> Iterator[Terraform]:
    """The real `terraform`; skips where there is none on PATH."""
    binary = shutil.which("terraform")
    if binary is None:
        pytest.skip("there is no `terraform` on PATH")
    with tempfile.TemporaryDirectory(prefix="terraform-") as folder:
        tool = prepare(binary, Path(folder))
        _used.append(
            "the real providers" if tool.real else "stand-ins for the providers: no registry answers"
        )
        yield tool


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for providers in _used:
        terminalreporter.write_line(f"Terraform ran with {providers}.")
