"""Private mount namespaces: what is mounted in one is seen by nobody else, and is gone with the last of its processes."""

import subprocess
import sys
from pathlib import Path

from support import notes
from support.cli import World

NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


def in_namespace(world: World, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash, in which `klearstack` is our command, where its mounts are seen by nobody else."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        raise notes.skipped("no mount namespace can be made here", "what is mounted")
    function = f'klearstack() {{ {sys.executable} -m vault_plugin "$@"; }}'
    environment = {name: text for name, text in (world.environ | environ).items() if text}
    return subprocess.run(
        [*NAMESPACE, "bash", "-c", f"{function}; set -e; {script}"],
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
