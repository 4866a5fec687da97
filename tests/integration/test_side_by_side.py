"""Version 0.1.0 and this one on the same paths, in both orders: neither breaks the other's tokens.

What 0.1.0 writes is a record (support/record.py made it), and how it reads a copy of its rules; tests/long runs 0.1.0 itself.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import rules_0_1_0 as rules
from support.cli import World
from support.fakes import jwt
from support.side_by_side import Version, lock_file

from vault_plugin.settings.values import issuer
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind

RECORD: dict[str, Any] = json.loads(
    Path(__file__).with_name("recorded_0_1_0.json").read_text(encoding="utf-8")
)
# Seconds: a minute longer than those of the record, so that a slow run of this test deletes nothing too late.
LIVES = {Kind.ACCESS: 960, Kind.REFRESH: 172860}


class Old:
    """Version 0.1.0, by what it wrote in its time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kv = 2 if world.vault.is_v2(world.mount) else 1
        now = int(time.time())
        self._values: dict[str, Any] = {
            "mount": world.mount,
            "issuer": issuer(world.endpoint.url),
            "now": datetime.fromtimestamp(now, UTC),
        }
        for kind, life in LIVES.items():
            for mint in (1, 2):
                # Before any token of this run, which would not replace one that was issued later.
                name, dates = f"{kind}_{mint}", {"issued_at": now + mint - 60, "expires_at": now + life}
                claims = {"iat": dates["issued_at"], "exp": dates["expires_at"], "jti": f"{name}-jti"}
                self._values |= {name: jwt(kind, **claims), f"{name}_jti": f"{name}-jti"}
                for field, date in dates.items():
                    self._values[f"{name}_{field}"] = datetime.fromtimestamp(date, UTC)

    def token(self, kind: Kind, mint: int) -> str:
        return str(self._values[f"{kind}_{mint}"])

    def write(self, scene: str) -> None:
        """Send Vault what it has sent in this scene."""
        for request in RECORD[f"v{self._kv}"][scene]:
            path, body = self._filled(request["path"]), self._filled(request["body"])
            self._world.vault.admin.adapter.request(request["method"], path, json=body)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(one) for name, one in value.items()}
        return value.format(**self._values) if isinstance(value, str) else value

    def response(self, kind: Kind) -> dict[str, Any]:
        """Vault's response to a read."""
        data = "data/" if self._kv == 2 else ""
        response: dict[str, Any] = self._world.vault.admin.read(
            f"{self._world.mount}/{data}klearstack/Acme/26/{kind}"
        )
        return response

    def get(self, kind: Kind = Kind.ACCESS) -> str | None:
        """The token that it would return without a mint: a valid one of this endpoint, which Vault deletes in time."""
        found = rules.read(self.response(kind), self._kv, "26", "Acme", kind)
        if found is None:
            return None
        assert found.expires_at - time.time() > 400
        assert found.issued_by == issuer(self._world.endpoint.url)
        assert found.release_version
        assert self._kv == 1 or found.expires_at - 65 <= (found.deletion or 0) <= found.expires_at
        return found.jwt

    @property
    def rejected_at(self) -> float | None:
        return rules.rejected_at(self.response(Kind.ACCESS), self._kv)


def test_this_version_returns_and_replaces_what_the_old_one_stored(world: World) -> None:
    old, new = Old(world), Version(world, None)
    for mint, scene in enumerate(("minted", "renewed"), start=1):
        old.write(scene)
        found = new.get()
        assert (found["source"], world.endpoint.mints) == ("vault", 0)
        assert found["access_token"] == old.token(Kind.ACCESS, mint) == old.get()
        assert found["refresh_token"] == old.token(Kind.REFRESH, mint) == old.get(Kind.REFRESH)
    assert "1 fresh" in new.sync([26])
    old.write("rejected")
    assert old.get() is None
    renewed = new.get()
    assert (renewed["source"], world.endpoint.mints) == ("endpoint", 1)
    new.reject(renewed["access_token"])  # within a minute of the old version's rejection, which counts
    assert new.get()["access_token"] == renewed["access_token"] == old.get()
    assert new.get("--renew")["access_token"] == old.get() == world.endpoint.issued[-1]


def test_the_old_version_returns_what_this_one_stored(world: World) -> None:
    old, new = Old(world), Version(world, None)
    for mint, arguments in enumerate(((), ("--renew",)), start=1):
        found = new.get(*arguments)
        assert (found["source"], world.endpoint.mints) == ("endpoint", mint)
        assert (old.get(), old.get(Kind.REFRESH)) == (found["access_token"], found["refresh_token"])
        assert old.rejected_at is None
    new.reject(found["access_token"])
    assert old.get() is None
    assert old.rejected_at == pytest.approx(time.time(), abs=60)
    # It mints then, and writes over what is there.
    if world.vault.is_v2(world.mount):
        assert old.response(Kind.ACCESS)["data"]["metadata"]["version"] == 3
    assert lock_file(world).exists()  # so that both wait for each other


def test_both_have_the_same_path_for_an_identity() -> None:
    found = [
        [company, user, Identity(user, company).path("p", Kind.ACCESS)]
        for company, user, _ in RECORD["paths"]
    ]
    assert found == RECORD["paths"]
