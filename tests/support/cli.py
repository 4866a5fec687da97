"""The command as its users call it: a process of its own, with nothing in its environment that was not given."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import preloaded
from support.vault import Vault
from support.waiting import until
from vault_plugin.app import connect
from vault_plugin.demo.faults import Fault
from vault_plugin.demo.simulator import Simulator
from vault_plugin.settings import Settings

COMMAND = [sys.executable, "-m", "vault_plugin"]
# What measures coverage in subprocesses, and what a fresh interpreter itself needs.
_KEPT = ("PATH", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COVERAGE_FILE", "PYTHONPATH")


@dataclass
class World:
    """An endpoint, a Vault, a mount, and the environment that leads to them."""

    endpoint: Simulator
    vault: Vault
    mount: str
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        return kept() | {
            "HOME": str(self.home),
            "KLEARSTACK_LOCK_DIR": str(self.home / "locks"),
            "KLEARSTACK_URL": self.endpoint.url,
            "KLEARSTACK_USER_ID": "26",
            "KLEARSTACK_COMPANY_NAME": "Acme",
            "KLEARSTACK_VAULT_MOUNT": self.mount,
            "VAULT_ADDR": self.vault.address,
            "VAULT_TOKEN": self.vault.root_token,
        }

    def run(self, *arguments: str, **environ: str | None) -> subprocess.CompletedProcess[str]:
        """`klearstack-vault` with these arguments; a variable that is None is taken out of the environment."""
        return run(*arguments, environ=self.environ | environ)

    def get(self, *arguments: str, **environ: str | None) -> dict[str, Any]:
        """The JSON that `get` answers. Asserts that it succeeds in silence."""
        done = self.run("get", "--format", "json", *arguments, **environ)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def store(self) -> str:
        """Have both tokens stored as a `get` stores them, but without a process; the access token."""
        settings = Settings.from_env(self.environ)
        with connect(settings) as broker:
            return broker.get(settings.identity()).access.token.value.reveal()

    def answer_when(self, condition: Callable[[], object]) -> None:
        """Have the endpoint answer nobody until this is so."""
        go_on = self.endpoint.next_fault

        def held() -> Fault:
            until(condition)
            return go_on()

        self.endpoint.next_fault = held  # type: ignore[method-assign]


def kept() -> dict[str, str]:
    """What of this process's environment a command gets in any case."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def run(
    *arguments: str, environ: Mapping[str, str | None], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """`klearstack-vault` with these arguments in this environment."""
    piped = subprocess.PIPE
    with start(*arguments, environ=environ, stdin=piped, stdout=piped, stderr=piped) as process:
        try:
            out, err = process.communicate(stdin, timeout=90)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess([*COMMAND, *arguments], process.returncode, out, err)


def start(*arguments: str, environ: Mapping[str, str | None], **more: Any) -> subprocess.Popen[str]:
    """A running `klearstack-vault`; `more` are further arguments of Popen."""
    given = {name: value for name, value in environ.items() if value is not None}
    popen = preloaded.Popen if preloaded.serves(given) else subprocess.Popen
    return popen([*COMMAND, *arguments], env=given, text=True, **more)
