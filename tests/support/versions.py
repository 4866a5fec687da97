"""Our package with the lowest versions of all that pyproject.toml says it needs, and on the newest Python of this machine."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from support import notes
from support.environments import environment, newer_python
from support.once import made_once

ROOT = Path(__file__).parents[2]
LOWEST, NEWEST = KINDS = ("lowest versions", "newest Python")


def installed(kind: str, factory: pytest.TempPathFactory, package: Path, *extras: str) -> Path | None:
    """Where the programs of that environment are, made once per run; None if there is no newer Python than ours."""
    python = sys.executable if kind == LOWEST else newer_python()
    if python is None:
        own = ".".join(map(str, sys.version_info[:2]))
        notes.take(f"Not tested: newer versions of Python, since there is none newer than {own} here.")
        return None
    lowest = [*_declared(*extras)] if kind == LOWEST else []
    # What a package needs does not count as direct unless it is named.
    flags = ["--resolution=lowest-direct", *map(str, lowest)] if lowest else []
    ours = f"{package}[{','.join(extras)}]" if extras else str(package)
    name = "-".join((*kind.split(), *extras))
    programs = made_once(factory, name, lambda made: environment(made, *flags, ours, python=python)) / "bin"
    assert _versions(programs, [one.name for one in lowest]) == [_bound(one) for one in lowest]
    return programs


def _declared(*extras: str) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = (one for extra in extras for one in project["optional-dependencies"][extra])
    for one in map(Requirement, [*project["dependencies"], *optional]):
        if one.name != project["name"]:
            yield one
        else:
            yield from _declared(*one.extras)  # which an extra of ours takes along


def _bound(requirement: Requirement) -> Version:
    (bound,) = requirement.specifier
    assert bound.operator == ">="
    return Version(bound.version)


def _versions(programs: Path, names: list[str]) -> list[Version]:
    """What is installed there."""
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(programs / "python"), "-c", ask, *names]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [*map(Version, told.split())]
