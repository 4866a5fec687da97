"""Two versions of the command that use the same paths in Vault, and the same lock folder."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.cli import COMMAND, World, run

# tests/integration/recorded_0_1_0.json has what it writes, for where git's history does not reach back to it.
RELEASE = "a627a97c004b264aa45d9936572df99ecac03684"  # the commit of version 0.1.0
DATE = "%Y-%m-%dT%H:%M:%SZ"  # the form of its dates
ROOT = Path(__file__).parents[2]
HOSTS = {"KLEARSTACK_HELPER_HOSTS": "api.example"}


@dataclass
class Version:
    """The command as one version has it; `folder` has its package, None for this one."""

    world: World
    folder: Path | None

    @property
    def environ(self) -> dict[str, str]:
        own = {} if self.folder is None else {"PYTHONPATH": str(self.folder)}
        return self.world.environ | HOSTS | own

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environ,
            cwd=self.world.home,
            stdin=-1,
            stdout=-1,
            stderr=-1,
            text=True,
        )

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What it prints. Asserts that it succeeds in silence."""
        if self.folder is not None:  # it needs a process that has not loaded this version
            return self.ended(self.start(*arguments), stdin)
        done = run(*arguments, environ=self.environ, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def ended(self, process: subprocess.Popen[str], stdin: str = "") -> str:
        """The same for a process that was started."""
        out, err = process.communicate(stdin, timeout=90)
        assert (process.returncode, err) == (0, "")
        return out

    def get(self, *arguments: str) -> dict[str, Any]:
        """The JSON that `get` prints, without what depends on the moment."""
        answer = json.loads(self.run("get", "--token", "both", "--format", "json", *arguments))
        return {name: value for name, value in answer.items() if not name.endswith("expires_in")}

    def reject(self, token: str) -> None:
        """As git does it with a credential that a server has rejected."""
        query = f"protocol=https\nhost=api.example\nusername=oauth2\npassword={token}\n\n"
        self.run("helper", "git", "erase", stdin=query)

    def sync(self, users: Sequence[int]) -> str:
        path = self.world.home / "manifest.csv"
        path.write_text("user_id,company_name\n" + "".join(f"{user},Acme\n" for user in users))
        return self.run("sync", str(path))


def released(folder: Path) -> Path | None:
    """Version 0.1.0, from git's history, in that folder; None where the history does not reach back so far."""
    archive = ["git", "-C", str(ROOT), "archive", RELEASE, "vault_plugin"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode:
        return None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def lock_file(world: World) -> Path:
    """The file by which version 0.1.0 locks the identity of this world."""
    key = (world.vault.address, "", world.mount, world.endpoint.url, "klearstack/Acme/26/access")
    return world.home / "locks" / sha256("\n".join(key).encode()).hexdigest()[:3]
