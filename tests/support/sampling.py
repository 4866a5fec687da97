"""What Vault holds for many identities, looked at once a second, as a consumer would find it."""

import http.client
import json
import threading
import time
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from support.vault import Vault
from vault_plugin.timing.clock import parse_rfc3339


class Sample(NamedTuple):
    """One look at all of them: when (Unix seconds), and how many had no good token."""

    at: float
    lacking: int


class Sampler:
    """Looks at `<mount>/klearstack/Acme/<user>/access` of these users, in a thread, until the block is left."""

    def __init__(self, vault: Vault, mount: str, users: range) -> None:
        self.samples: list[Sample] = []
        self._vault = vault
        self._paths = [f"/v1/{mount}/data/klearstack/Acme/{user}/access" for user in users]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def lacking(self) -> int:
        """How many looks found no good token, of all identities and seconds."""
        return sum(sample.lacking for sample in self.samples)

    def _work(self) -> None:
        url = urlsplit(self._vault.address)
        connection = http.client.HTTPConnection(url.hostname or "", url.port)
        while not self._over.is_set():
            started = time.time()
            lacking = sum(not self._is_good(connection, path) for path in self._paths)
            self.samples.append(Sample(started, lacking))
            self._over.wait(started + 1 - time.time())
        connection.close()

    def _is_good(self, connection: http.client.HTTPConnection, path: str) -> bool:
        connection.request("GET", path, headers={"X-Vault-Token": self._vault.root_token})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return False
        data = json.loads(body)["data"]["data"]
        return (parse_rfc3339(data["expires_at"]) or 0) > time.time()
