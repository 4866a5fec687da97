"""The collection's own tests and what lints it, in a copy: these tools want it in certain folders, and write there."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from support.ansible import ROOT
from support.cli import kept
from support.environments import index

SOURCE = ROOT / "ansible/ansible_collections/klearstack/vault"
_WRITTEN = (".ansible", "__pycache__", "output", "inventory", "integration_config.yml", "*.tar.gz")


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
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def copy(programs: Path, home: Path) -> Copy:
    made = Copy(programs, home)
    shutil.copytree(SOURCE, made.place, ignore=shutil.ignore_patterns(*_WRITTEN))
    return made


_INSTALLER = """\
import os, sys
arguments = [one for one in sys.argv[1:] if one != "--disable-pip-version-check"]
if arguments[0] == "install":
    os.execv({uv!r}, [{uv!r}, "pip", "install", "--quiet", "--native-tls", "--python", sys.executable, *arguments[1:]])
os.execv({python!r}, [{python!r}, "-m", "pip", "--python", sys.executable, *arguments])
"""


def lend_pip(made: Copy) -> None:
    """Give ansible-test, for the virtual environments that it makes, a pip that installs by uv.

    It would download a `get-pip.py` from a host of its own, a second one beside PyPI, and run it seven times.
    """
    (packages,) = made.programs.parent.glob("lib/python*/site-packages")
    asked = (packages / "ansible_test/_internal/python_requirements.py").read_text(encoding="utf-8")
    pip, cache = made.home / "lent/pip", made.home / ".ansible/test/cache"
    pip.mkdir(parents=True)
    cache.mkdir(parents=True)
    (pip / "__init__.py").touch()
    installer = _INSTALLER.format(uv=find_uv_bin(), python=str(made.programs / "python"))
    (pip / "__main__.py").write_text(installer, encoding="utf-8")
    lending = f"import os, sysconfig\nos.symlink({str(pip)!r}, sysconfig.get_path('purelib') + '/pip')\n"
    for version in re.findall(r"\bpip='([\d.]+)'", asked):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(lending, encoding="utf-8")
