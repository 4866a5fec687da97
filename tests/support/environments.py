"""Virtual environments of the tests' own, made by uv, which takes a small part of the time that pip takes."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from uv import find_uv_bin

_INDEX = "global.index-url"  # of pip's configuration
# Read at import, before a fixture cleans the environment: the way to the package index may lead through these.
_OUTWARD = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("UV_", "SSL_CERT_")) or name.lower().endswith("_proxy")
}
_OWN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def environment(folder: Path, *requirements: str, python: str = sys.executable) -> Path:
    """Make the folder a virtual environment with these packages; returns where its programs are.

    Its pip installs by uv, and does nothing else, unless pip is one of the requirements.
    """
    _uv("venv", "--clear", f"--python={python}", str(folder))
    _uv("pip", "install", f"--python={folder}/bin/python", *requirements)
    (packages,) = folder.glob("lib/python*/site-packages")
    if not (packages / "pip").exists():
        lent_pip(packages)
    return folder / "bin"


def wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of the project there; returns where it is."""
    _uv("build", "--wheel", f"--python={sys.executable}", f"--out-dir={folder}", str(source))
    (built,) = folder.glob("*.whl")
    return built


def newer_python() -> str | None:
    """The newest Python on this machine, if it is newer than ours: of uv, of pyenv, or on the PATH."""
    asked = subprocess.run(
        [find_uv_bin(), "python", "dir"], env=_OWN | _OUTWARD, capture_output=True, text=True, check=True
    )
    pyenv = Path(os.environ.get("PYENV_ROOT", f"{_OWN.get('HOME')}/.pyenv"))
    folders = [*Path(asked.stdout.strip()).glob("*/bin"), *pyenv.glob("versions/*/bin")]
    folders += map(Path, _OWN["PATH"].split(os.pathsep))
    own = sys.version_info.minor
    for minor in range(own + 5, own, -1):
        for program in (folder / f"python3.{minor}" for folder in folders):
            if (
                program.is_file()
                and not subprocess.run([program, "-c", ""], env=_OWN, check=False).returncode
            ):
                return str(program)
    return None


_PIP = """\
import os, sys
arguments = [one for one in sys.argv[1:] if one != "--disable-pip-version-check"]
if arguments[0] == "install":
    os.execv({uv!r}, [{uv!r}, "pip", "install", "--quiet", "--native-tls", "--python", sys.executable, *arguments[1:]])
if arguments[0] != "uninstall":  # of pip, which nobody misses
    sys.exit(f"There is no pip here, only what installs by uv: {{arguments}}")
"""


def lent_pip(packages: Path) -> Path:
    """A package `pip` in that folder, for what would run pip's own: it installs by uv."""
    folder = packages / "pip"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(_PIP.format(uv=find_uv_bin()), encoding="utf-8")
    return folder


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
