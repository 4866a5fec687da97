"""Virtual environments of the tests' own, made by uv, which takes a small part of the time that pip takes."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_INDEX = "global.index-url"  # of pip's configuration
# Read at import, before a fixture cleans the environment: the way to the package index may lead through these.
_OUTWARD = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("UV_", "SSL_CERT_")) or name.lower().endswith("_proxy")
}
_OWN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def environment(folder: Path, *requirements: str) -> Path:
    """Make the folder a virtual environment with pip and what else is required; returns where its programs are."""
    _uv("venv", "--clear", "--seed", f"--python={sys.executable}", str(folder))
    _uv("pip", "install", f"--python={folder}/bin/python", *requirements)
    return folder / "bin"


def built(project: Path, folder: Path) -> Path:
    """The wheel of a project, put into the folder."""
    _uv("build", "--wheel", f"--python={sys.executable}", f"--out-dir={folder}", str(project))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", "--native-tls", *arguments],
        env=_OWN | index(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@cache
def index() -> dict[str, str]:
    """Variables that lead uv to the package index, also if only pip's configuration names another one than PyPI."""
    if "UV_DEFAULT_INDEX" in _OUTWARD:
        return _OUTWARD
    command = [sys.executable, "-m", "pip", "config", "get", _INDEX]
    asked = subprocess.run(command, env=_OWN, capture_output=True, text=True, check=False, timeout=60)
    return _OUTWARD | ({"UV_DEFAULT_INDEX": asked.stdout.strip()} if asked.returncode == 0 else {})
