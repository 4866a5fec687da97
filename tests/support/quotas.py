"""An OpenBao with rate limit quotas and an audit log, and what both tell of a run."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.vault import Vault
from vault_plugin.demo.embedded import openbao
from vault_plugin.timing.clock import parse_rfc3339


class Audited(Vault):
    """A Vault that logs what it accepts. `log` is its audit log."""

    def __init__(self, address: str, root_token: str, log: Path) -> None:
        super().__init__(address, root_token)
        self.log = log

    def limit(self, mount: str, rate: float) -> None:
        """Accept so many requests per second to that mount."""
        self.admin.write_data("sys/quotas/rate-limit/test", data={"path": f"{mount}/", "rate": rate})

    def unlimit(self) -> None:
        """Accept any number of requests."""
        self.admin.delete("sys/quotas/rate-limit/test")

    def writes(self, mount: str) -> Counter[str]:
        """How often each path was written since the mount was made, by the audit log, which has no refused request."""
        counts: Counter[str] = Counter()
        for line in self.log.read_text().splitlines():
            entry: dict[str, Any] = json.loads(line)
            asked = entry["request"]
            written = asked["operation"] in ("create", "update") and entry["type"] == "response"
            where, _, path = asked["path"].removeprefix(f"{mount}/").partition("/")
            if written and not entry.get("error") and asked["path"].startswith(f"{mount}/") and path:
                counts[f"{where}/{path}"] += 1
        return counts

    def lateness(self, mount: str, user: object, kind: str) -> float | None:
        """Seconds by which Vault deletes that token of Acme after its JWT expires; None if there is no token."""
        read = self.admin.secrets.kv.v2.read_secret_version
        path = f"klearstack/Acme/{user}/{kind}"
        found = read(path, mount_point=mount, raise_on_deleted_version=False)["data"]
        if not found["data"]:
            return None
        deletion = parse_rfc3339(found["metadata"]["deletion_time"])
        expires_at = parse_rfc3339(found["data"]["expires_at"])
        assert deletion is not None
        assert expires_at is not None
        return deletion - expires_at


@contextmanager
def audited_vault(folder: Path) -> Iterator[Audited]:
    """Run one with its audit log in that folder."""
    log = folder / "audit.log"
    # OpenBao makes audit devices by its configuration only, no more by its API.
    with openbao(f'audit "file" "file" {{\n  options {{ file_path = "{log}" }}\n}}') as server:
        vault = Audited(server.address, server.root_token, log)
        yield vault
        vault.close()
