"""What the tests themselves say where something is missing that they need."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import kept

ROOT = Path(__file__).parents[2]
Case = tuple[list[str], dict[str, str], str]
DOCKER: Case = (
    ["tests/contract/test_store.py", "-k", "container-v2 and a_new_store_is_empty"],
    {"DOCKER_HOST": "unix:///nonexistent/docker.sock"},
    "Not tested: Vault in a container, since no Docker engine answers.",
)
TERRAFORM: Case = (
    ["tests/terraform/test_modules.py", "-k", "test_the_examples_are_formatted"],
    {"PATH": str(Path(sys.executable).parent)},
    "Not tested: the Terraform module, the examples and the stand-ins, since there is no `terraform` on PATH.",
)
PORT: Case = (
    ["tests/contract/test_store.py", "-k", "bao-v2 and a_new_store_is_empty"],
    {},
    "Not tested: what talks to a server, since no port of 127.0.0.1 can be reached (Network is unreachable).",
)


def without(
    arguments: list[str], environ: dict[str, str], folder: Path, *prefix: str
) -> subprocess.CompletedProcess[str]:
    """The tests in a process of their own, which says what it did not test."""
    own = ["-n0", f"--basetemp={folder / 'tests'}", "-pno:cacheprovider"]
    return subprocess.run(
        [*prefix, sys.executable, "-m", "pytest", *arguments, *own],
        cwd=ROOT,
        env=kept() | {"HOME": str(folder)} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "line"), [DOCKER, TERRAFORM, PORT], ids=["docker", "terraform", "port"]
)
@pytest.mark.parametrize("forbidden", [False, True], ids=["allowed", "forbidden"])
def test_one_line_says_what_is_missing_and_what_is_not_tested_for_it(
    arguments: list[str], environ: dict[str, str], line: str, forbidden: bool, tmp_path: Path
) -> None:
    # A network of its own, in which not even the loopback device is up.
    prefix = [str(shutil.which("unshare")), "--map-root-user", "--net"] if arguments == PORT[0] else []
    if forbidden:
        environ = {**environ, "KLEARSTACK_TEST_NO_SKIPS": "1"}
    done = without(arguments, environ, tmp_path, *prefix)
    assert done.returncode == int(forbidden), done.stdout + done.stderr
    assert done.stdout.splitlines().count(line) == 1, done.stdout
    assert "1 skipped" in done.stdout
