"""A token is minted and read, and no error shows what was typed, with other versions of what we need and of Python."""

import subprocess
from pathlib import Path

import pytest
from support.ansible import built_wheel
from support.cli import World
from support.versions import KINDS, installed

CANARY = "hvs.CANARY7351"


def called(programs: Path, world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(programs / "klearstack-vault"), *arguments],
        env=world.environ,
        cwd=world.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_cold_and_a_warm_get_a_typo_and_a_sync(
    kv2: World, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    programs = installed(kind, tmp_path_factory, built_wheel(tmp_path_factory))
    if programs is None:  # a note says so
        return
    for _ in range(2):
        done = called(programs, kv2, "get")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{kv2.endpoint.issued[1]}\n", "")
    assert kv2.endpoint.requests == 1
    done = called(programs, kv2, "get", f"--tokn={CANARY}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1)
    assert CANARY not in done.stderr
    manifest = kv2.home / "manifest.yaml"
    manifest.write_text("identities:\n- {user_id: 27, company_name: Acme}\n", encoding="utf-8")
    done = called(programs, kv2, "sync", str(manifest), "--deadline", "1m")
    assert (done.returncode, kv2.endpoint.requests) == (0, 2), done.stderr
