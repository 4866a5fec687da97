"""The examples run as they stand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import World, kept
from support.pages import block
from support.vault import Vault

from vault_plugin.demo.embedded import binary
from vault_plugin.demo.simulator import Simulator

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_library(kv2: World) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "library.py")],
        env=kv2.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1 header, good for 8")
    assert done.stdout.endswith(" s, from endpoint\n")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the command of this interpreter, wherever its scripts lie, and `bao` by the name of `vault`."""
    commands = {"klearstack-vault": f'"{sys.executable}" -m vault_plugin', "vault": binary()}
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, command in commands.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_the_readmes_example(bao: Vault, tmp_path: Path, path: str) -> None:
    example = block("README.md", "export ")
    assert len(example.splitlines()) - example.splitlines().count("") <= 8
    (tmp_path / "token").write_text(bao.root_token)
    with Simulator() as endpoint:
        for theirs, ours in {
            "https://api.example.com": endpoint.url,
            "https://vault.example.com:8200": bao.address,
            "/run/secrets/vault-token": str(tmp_path / "token"),
            '"$KLEARSTACK_URL/..."': f"{endpoint.url}/simulator/stats",
        }.items():
            example = example.replace(theirs, ours)
        done = subprocess.run(
            ["/bin/sh", "-eu"],
            input=example,
            env=kept() | {"PATH": path, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
    answer, _, rest = done.stdout.partition("\n")
    assert json.loads(answer)["access_token"] == endpoint.issued[1]
    assert rest.startswith('{"mints": 1, "requests": 1}')  # what curl got
    assert endpoint.issued[1] in rest  # what Vault's own command shows


def test_the_documented_commands_of_exec_find_the_token_in_their_variables(
    kv2: World, tmp_path: Path, path: str
) -> None:
    example = block("docs/commands.md", "klearstack-vault exec ")
    script = (
        '#!/bin/sh\ncat ${2:+"$2"} </dev/null\necho "$KLEARSTACK_ACCESS_TOKEN $KLEARSTACK_TOKEN_EXPIRATION"\n'
    )
    (tmp_path / "upload.sh").write_text(script)
    (tmp_path / "upload.sh").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-euc", example],
        cwd=tmp_path,
        env=kv2.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    token = kv2.endpoint.issued[1]
    expiration = kv2.vault.read(kv2.mount, "klearstack/Acme/26/access")["expires_at"]  # type: ignore[index]
    # Standard input is empty: the first prints the variable, the second the file of the same token.
    assert done.stdout == f"{token} {expiration}\n{token} {expiration}\n"
    assert len(example.splitlines()) == 2


def test_call_api(kv2: World, path: str) -> None:
    done = subprocess.run(
        [str(EXAMPLES / "call-api.sh"), "/simulator/stats", "-v"],
        env=kv2.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '{"mints": 1, "requests": 1}'
    assert f"Authorization: Bearer {kv2.endpoint.issued[1]}" in done.stderr  # curl -v, not we
