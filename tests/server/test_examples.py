"""The examples run as they stand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import World
from vaults import Vault

from vault_plugin.simulator import Simulator

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def world(bao: Vault, tmp_path: Path) -> Iterator[World]:
    with Simulator() as endpoint:
        yield World(endpoint, bao, bao.mount("v2"), tmp_path)


def test_library(world: World) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "library.py")],
        env=world.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1 header, good for 8")
    assert done.stdout.endswith(" s, from endpoint\n")


def test_call_api(world: World, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "klearstack-vault"  # this interpreter's, wherever its scripts lie
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vault_plugin "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        [str(EXAMPLES / "call-api.sh"), "/simulator/stats", "-v"],
        env=world.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '{"mints": 1, "requests": 1}'
    assert f"Authorization: Bearer {world.endpoint.issued[1]}" in done.stderr  # curl -v, not we
