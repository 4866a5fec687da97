"""What the tests themselves say where something is missing that they need."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import kept

ROOT = Path(__file__).parents[2]
TESTS = [
    *("tests/contract/test_store.py", "tests/terraform/test_modules.py"),
    *("-k", "(container-v2 or bao-v2) and a_new_store_is_empty or test_the_examples_are_formatted"),
]
MISSING = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "PATH": str(Path(sys.executable).parent)}
LINES = {
    "Not tested: Vault in a container, since no Docker engine answers.",
    "Not tested: the Terraform module, the examples and the stand-ins, since there is no `terraform` on PATH.",
    "Not tested: what talks to a server, since no port of 127.0.0.1 can be reached (Network is unreachable).",
}


@pytest.mark.parametrize("forbidden", [False, True], ids=["allowed", "forbidden"])
def test_one_line_says_what_is_missing_and_what_is_not_tested_for_it(forbidden: bool, tmp_path: Path) -> None:
    # A network of its own, in which not even the loopback device is up.
    without_network = [str(shutil.which("unshare")), "--map-root-user", "--net"]
    own = ["-n0", f"--basetemp={tmp_path / 'tests'}", "-pno:cacheprovider"]
    done = subprocess.run(
        [*without_network, sys.executable, "-m", "pytest", *TESTS, *own],
        cwd=ROOT,
        env=kept()
        | {"HOME": str(tmp_path)}
        | MISSING
        | ({"KLEARSTACK_TEST_NO_SKIPS": "1"} if forbidden else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == int(forbidden), done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert [said.count(line) for line in LINES] == [1, 1, 1], done.stdout
    assert "3 skipped" in done.stdout
