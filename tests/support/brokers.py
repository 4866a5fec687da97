"""A broker over fakes."""

from typing import Any

from support.fakes import (
    ACME,
    NOW,
    FakeClock,
    FakeLock,
    FakeReader,
    FakeSource,
    FakeStore,
    pair,
    token,
)
from vault_plugin.broker import Broker, Grant
from vault_plugin.broker.freshness import Freshness
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.jwt import Kind

DEADLINE = Deadline(10)
URL = "https://api.example"
STAGING = "https://staging.example"


class World:
    """A broker and its surroundings."""

    def __init__(self, *minted: Any, warm: bool = True, bypass: bool = False, min_ttl: float = 60) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(self.clock.now)
        self.source = FakeSource(list(minted) or [pair()])
        self.lock = FakeLock()
        self.built: list[str] = []
        self.broker = Broker(
            reader=FakeReader(self.store) if warm else None,
            store=self._get_store,
            source=lambda: self.source,
            lock=self.lock,
            freshness=Freshness(now=self.clock.now, vault_now=self.clock.now, endpoint=URL, min_ttl=min_ttl),
            deadline=10,
            bypass=bypass,
        )

    def _get_store(self) -> FakeStore:
        self.built.append("store")
        return self.store

    def get(self, *kinds: Kind, renew: bool = False) -> Grant:
        return self.broker.get(ACME, kinds or (Kind.ACCESS,), renew=renew)

    def keep(self, *, at: int = NOW, life: int = 900, jti: str = "kept", by: str = "", **claims: Any) -> None:
        """Store both tokens as another process would."""
        for kind in Kind:
            state = self.store.read(ACME, kind, DEADLINE)
            made = token(kind, at=at, life=life, jti=jti, by=by, **claims)
            self.store.write(ACME, made, "1", state, DEADLINE)


def late(world: World, *kinds: Kind, jti: str = "kept") -> None:
    """Have Vault keep what is stored an hour too long."""
    world.keep(jti=jti)
    for kind in kinds or (Kind.ACCESS,):
        world.store.delay(ACME, kind, 3600)
