"""The unit tests with the lowest versions of all that we and they need, and on the newest Python of this machine."""

import os
import subprocess

import pytest
from support.versions import KINDS, ROOT, installed


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_tests_pass(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    programs = installed(kind, tmp_path_factory, ROOT, "test")
    if programs is None:  # a note says so
        return
    own = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    done = subprocess.run(
        [str(programs / "python"), "-m", "pytest", "tests/unit", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
