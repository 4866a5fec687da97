"""Where secrets are looked for: in a text, and in what `ps` shows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support import preloaded
from support.cli import World
from vault_plugin.demo.simulator import Simulator


def leaked(kv2: World, endpoint: Simulator, text: str) -> list[str]:
    """What of all secrets stands in this text: whole tokens, their parts, and the Vault token."""
    parts = {part for token in endpoint.issued for part in (token, *token.split(".")[1:]) if len(part) > 20}
    return [secret for secret in {*parts, kv2.vault.root_token} if secret in text]


@contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """The command lines of all processes that run meanwhile, as `ps` would show them.

    cli.run starts the command as a process of its own meanwhile: a copy has the command line of what it is a copy of.
    """
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended meanwhile
                    seen.add(path.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with preloaded.suspended():
            yield seen
    finally:  # or a test that fails would never end
        over.set()
        watcher.join()
