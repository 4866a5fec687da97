"""The collection's own tests and what lints it, in a copy: these tools want it in certain folders, and write there."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ansible import CORES, ROOT, TOKEN, built_wheel
from support.cli import kept
from support.environments import environment, index, lent_pip
from support.once import made_once

SOURCE = ROOT / "ansible/ansible_collections/klearstack/vault"
_WRITTEN = (".ansible", "__pycache__", "output", "inventory", "integration_config.yml", "*.tar.gz")
_LOCALLY = ("--local", "--python", f"{sys.version_info.major}.{sys.version_info.minor}")


@dataclass(frozen=True)
class Copy:
    """A copy of the collection in a folder that is a home too, and programs to run there."""

    programs: Path  # a venv's bin
    home: Path

    @property
    def place(self) -> Path:
        return self.home / "ansible_collections/klearstack/vault"

    def run(
        self, program: str, *arguments: str, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of these in the collection, or in `cwd`. Asserts success."""
        env = kept()
        env |= {
            "HOME": str(self.home),
            "PATH": f"{self.programs}:{env['PATH']}",
            "ANSIBLE_NOCOLOR": "1",
            "PIP_QUIET": "1",
        } | index()
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=cwd or self.place,
            env=env | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def copy(programs: Path, home: Path) -> Copy:
    made = Copy(programs, home)
    shutil.copytree(SOURCE, made.place, ignore=shutil.ignore_patterns(*_WRITTEN))
    return made


def ansible_test(made: Copy, *arguments: str) -> str:
    """What it says."""
    done = made.run("ansible-test", *arguments, *_LOCALLY)
    return done.stdout + done.stderr


def assert_sane(made: Copy, *arguments: str) -> None:
    """Run the sanity tests of that version of ansible-core."""
    _lend_pip(made)
    said = ansible_test(made, "sanity", *arguments)
    assert 'Running sanity test "validate-modules"' in said
    assert 'Running sanity test "import"' in said


def _lend_pip(made: Copy) -> None:
    """Give ansible-test, for the virtual environments that it makes, a pip that installs by uv.

    It would download a `get-pip.py` from a host of its own, a second one beside PyPI, and run it seven times.
    """
    (packages,) = made.programs.parent.glob("lib/python*/site-packages")
    asked = (packages / "ansible_test/_internal/python_requirements.py").read_text(encoding="utf-8")
    pip, cache = lent_pip(made.home / "lent"), made.home / ".ansible/test/cache"
    cache.mkdir(parents=True)
    lending = f"import os, sysconfig\nos.symlink({str(pip)!r}, sysconfig.get_path('purelib') + '/pip')\n"
    for version in re.findall(r"\bpip='([\d.]+)'", asked):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(lending, encoding="utf-8")


def linters(factory: pytest.TempPathFactory) -> Copy:
    """A copy, and what lints it."""
    packages = (
        f"ansible-core=={CORES[-1]}.*",
        str(built_wheel(factory)),
        "ansible-lint>=25",
        "antsibull-changelog>=0.30",
        "antsibull-docs>=2.16",
        "galaxy-importer>=0.4.30",
    )
    venv = made_once(factory, "ansible-linters", lambda folder: environment(folder, *packages))
    return copy(venv / "bin", factory.mktemp("tools"))


def tarball_of(tools: Copy) -> Path:
    """What would be uploaded to Galaxy."""
    folder = tools.home / "built"
    tools.run("ansible-galaxy", "collection", "build", "--output-path", str(folder))
    (built,) = folder.iterdir()
    return built


def assert_importable(tools: Copy, tarball: Path, **environ: str) -> None:
    """Run what Galaxy runs on what is uploaded to it."""
    done = tools.run("python", "-m", "galaxy_importer.main", str(tarball), cwd=tools.home, **environ)
    said = done.stdout + done.stderr
    assert f"Loading lookup {TOKEN.rpartition('.')[2]}" in said
    assert "ERROR" not in said
    assert "WARNING" not in said
