"""A tour of a token's lifetime on a real OpenBao and a simulated endpoint, with the commands that a user would run."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from vault_plugin import children
from vault_plugin.demo.embedded import Server, binary, openbao
from vault_plugin.demo.simulator import Simulator
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.output.temporary import temporary_folder
from vault_plugin.signals import STOP, handled
from vault_plugin.timing.clock import parse_rfc3339

SHORT_LIFETIME = 8  # seconds of the access token of the last step


class Narrator:
    """Runs commands in their own environment and shows their output, with tokens shortened."""

    def __init__(self, vault: Server, folder: str, say: Callable[[str], object]) -> None:
        self._say = say
        self._vault = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": vault.root_token, "HOME": folder}
        self._lock_dir = f"{folder}/locks"

    def get(self, endpoint: Simulator, user_id: str) -> dict[str, Any]:
        """Run `klearstack-vault get` as a separate process and return its output."""
        arguments = ["get", "--user-id", user_id, "--company-name", "Acme", "--format", "json"]
        self._say(f"   $ klearstack-vault {shlex.join(arguments)}")
        environ = self._vault | {"KLEARSTACK_URL": endpoint.url, "KLEARSTACK_LOCK_DIR": self._lock_dir}
        code, output = _run([sys.executable, "-m", "vault_plugin", *arguments], environ)
        insist(code == 0, f"`klearstack-vault get` failed with exit code {code}")
        result: dict[str, Any] = json.loads(output)
        shown = result | {"access_token": result["access_token"][:12] + "..."}
        for line in json.dumps(shown, indent=2).splitlines():
            self._say(f"   {line}")
        return result

    def is_in_vault(self, path: str, *, show: bool) -> bool:
        """Whether OpenBao's own command finds the token; `show` prints the command."""
        arguments = ["kv", "get", "-mount=secret", "-field=expires_at", path]
        if show:
            self._say(f"   $ bao {shlex.join(arguments)}")
        code, _ = _run([binary(), *arguments], self._vault, stderr=subprocess.DEVNULL)
        return code == 0


def _run(command: list[str], environ: dict[str, str], stderr: int | None = None) -> tuple[int, str]:
    """Run a command; return its exit code and output. It has ended on return, also if this process is interrupted."""
    # Otherwise it would create the temporary folder again.
    with children.started(command, env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        output, _ = process.communicate()
    return process.returncode, output


def run(say: Callable[[str], object]) -> None:
    """Run the tour, which takes under 20 seconds; `say` prints a line.

    All processes and files are removed at the end, also after Ctrl-C, SIGTERM and SIGHUP.
    """
    with (
        handled(STOP, signal.default_int_handler),
        temporary_folder("klearstack-vault-demo-") as folder,
        openbao() as vault,
        Simulator() as endpoint,
        Simulator(access_ttl=SHORT_LIFETIME) as short_lived,
    ):
        say("The life cycle of a KlearStack token in Vault, on this machine only:")
        say(f"   Vault      a real OpenBao at {vault.address}, KV v2 at secret/")
        say(f"   endpoint   a simulated KlearStack at {endpoint.url}")
        narrator = Narrator(vault, folder, say)
        _show_reuse(narrator, endpoint, say)
        _show_expiry(narrator, short_lived, say)
        say("\nOpenBao, the endpoint and their data have been removed.")


def _show_reuse(narrator: Narrator, endpoint: Simulator, say: Callable[[str], object]) -> None:
    say("\n1. Vault has no token yet: the endpoint mints one, which is stored in Vault.")
    first = narrator.get(endpoint, "26")
    say(f"   source: {first['source']}. The endpoint has minted {_times(endpoint.mints)}.")
    say("\n2. The next caller gets the same token from Vault, without a request to the endpoint.")
    second = narrator.get(endpoint, "26")
    say(f"   source: {second['source']}. The endpoint has minted {_times(endpoint.mints)}.")
    say("\n3. Vault deletes the token just before its JWT expires.")
    deletion = second["vault"]["deletion_time"]
    early = (parse_rfc3339(second["expires_at"]) or 0) - (parse_rfc3339(deletion) or 0)
    say(f"   the JWT's exp           {second['expires_at']}")
    say(f"   Vault's deletion_time   {deletion[:-1][:23]}Z, {early:.1f} s earlier")
    insist(
        (first["source"], second["source"], endpoint.mints) == ("endpoint", "vault", 1),
        "the token was not minted exactly once",
    )
    insist(0 <= early <= 3, "Vault would not delete the token in time")


def _show_expiry(narrator: Narrator, short_lived: Simulator, say: Callable[[str], object]) -> None:
    say(f"\n4. The token of another user expires after {SHORT_LIFETIME} seconds.")
    result = narrator.get(short_lived, "27")
    path = result["vault"]["path"]
    expires_at = parse_rfc3339(result["expires_at"]) or 0
    there = narrator.is_in_vault(path, show=True)
    say(
        f"   {'in Vault' if there else 'not in Vault'}, {expires_at - time.time():.1f} s before its JWT expires"
    )
    while there and time.time() < expires_at + 1:
        time.sleep(0.1)
        there = narrator.is_in_vault(path, show=False)
    say(
        f"   {'still in Vault' if there else 'deleted'}, {expires_at - time.time():.1f} s before its JWT expires"
    )
    insist(not there, "Vault kept the token after its JWT had expired")


def insist(holds: bool, complaint: str) -> None:
    """Check a statement of the demo. Raises KlearstackVaultError if it does not hold."""
    if not holds:
        raise KlearstackVaultError(f"The demo failed: {complaint}.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
