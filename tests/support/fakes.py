"""Hand-written stand-ins for the ports, and tokens to put into them."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, inf
from threading import Event
from typing import Any, NamedTuple

from vault_plugin.bulk.circuit_breaker import CircuitBreaker
from vault_plugin.bulk.scope import Scope
from vault_plugin.errors import KlearstackVaultError, SourceError, StoreBusyError, StoreError
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.names import checked
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef
from vault_plugin.vault.record import REJECTED_AT, foreign, rejected_at, stored_at, to_data, without_token


class Done(NamedTuple):
    """How a command line ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]  # the fixture `run`: the command line with these arguments, in this process
NOW = 1_790_000_000
ACME = Identity("26", "Acme")


def is_name(text: str) -> bool:
    """Whether it may be a user id or a company name."""
    try:
        return bool(checked(text))
    except ValueError:
        return False


def jwt(kind: str = "access", **claims: Any) -> str:
    """A JWT of that kind, issued NOW for 900 s unless `claims` says otherwise; its signature is nobody's."""
    payload = {"token_type": kind, "exp": NOW + 900, "iat": NOW, "jti": "j", "user_id": 26} | claims
    parts = (
        {"typ": "JWT", "alg": "HS256"},
        {name: value for name, value in payload.items() if value is not None},
    )
    head = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
    return f"{head}.c2lnbmF0dXJl"


def token(
    kind: Kind = Kind.ACCESS, *, at: int = NOW, life: int = 900, jti: str = "j", by: str = "", **claims: Any
) -> Token:
    """A token issued at `at` (Unix seconds), by that endpoint, that lives for `life` seconds."""
    about = {"iat": at, "exp": at + life, "jti": jti} | claims
    return Token.from_jwt(jwt(kind, **about), kind)._replace(issued_by=by)


def pair(at: int = NOW, life: int = 900, jti: str = "j", by: str = "") -> TokenSet:
    """Both tokens of one minting."""
    return TokenSet(
        token(Kind.ACCESS, at=at, life=life, jti=jti, by=by),
        token(Kind.REFRESH, at=at, life=86400, jti=jti, by=by),
        "1",
    )


@dataclass
class FakeClock:
    """A clock that goes when told; its `sleep` takes no time of ours."""

    time: float = NOW
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class FakeStore:
    """A store in memory which keeps the rules that the contract suite tests on a real Vault."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.data: dict[str, tuple[int, dict[str, str], float]] = {}  # path -> version, data, deletion time
        self.reads = 0
        self.error: Exception | None = None
        self.accept_other_users = False
        self.before_write: Callable[[], object] = lambda: None  # what happens elsewhere before the next write
        self.repairs = 0
        self.repair_error: Exception | None = None
        self.busy: StoreBusyError | None = None  # what keeps a new token from being minted
        self.read_only: StoreError | None = None  # what a write says
        self.tries = 0  # to write without a token

    @contextmanager
    def mint(self, identity: Identity, deadline: Deadline) -> Iterator[None]:
        if self.busy:
            raise self.busy
        yield

    def try_writing(self, identity: Identity, kind: Kind, slot: PathState, deadline: Deadline) -> PathState:
        self.tries += 1
        if self.read_only:
            raise self.read_only
        return slot

    def checks_and_sets(self, deadline: Deadline) -> bool:
        return True

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState:
        self.reads += 1
        if self.error:
            raise self.error
        version, data, deletion = self.data.get(identity.path("p", kind), (0, {}, 0.0))
        if not version:
            return PathState()
        if "managed" not in data:
            raise foreign()
        ref = _ref(identity.path("p", kind), version, deletion)
        if deletion <= self.now():
            return PathState(version)
        stored = stored_at(ref, data, identity, kind, accept_other_users=self.accept_other_users)
        return PathState(version, None, stored, rejected_at=rejected_at(data))

    def write(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        slot: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken:
        before, self.before_write = self.before_write, lambda: None
        before()
        if self.read_only:
            raise self.read_only
        if slot.stored and self._is_newer(slot.stored.token, token):
            return slot.stored
        newest = self.read(identity, token.kind, deadline)
        if newest.version != slot.version and newest.stored:
            theirs = newest.stored.token
            good = not token.newer_than(theirs) or theirs.expires_at - self.now() >= theirs.margin(inf)
            if (good and not theirs.is_ahead(self.now())) or not theirs.is_of(token.issued_by):
                return newest.stored
        return self._put(identity, token, release_version, slot._replace(version=newest.version))

    def repair(self, identity: Identity, slot: PathState, deadline: Deadline) -> PathState:
        """Like VaultStore: the same token in a new version, or none if it has expired."""
        self.repairs += 1
        if self.repair_error:
            raise self.repair_error
        assert slot.stored
        stored = self._put(identity, slot.stored.token, slot.stored.release_version, slot)
        alive = stored.token.expires_at > self.now()
        return PathState(slot.version + 1, None, stored if alive else None)

    def reject(self, identity: Identity, slot: PathState, deadline: Deadline) -> None:
        if self.read_only:
            raise self.read_only
        path = identity.path("p", Kind.ACCESS)
        version, data, deletion = self.data[path]
        if version == slot.version and not slot.newly_rejected(self.now()):
            mark = {REJECTED_AT: format_rfc3339(ceil(self.now()))}
            self.data[path] = version + 1, without_token(data, Kind.ACCESS) | mark, deletion

    def delay(self, identity: Identity, kind: Kind, seconds: float) -> None:
        """Have what is stored deleted so many seconds after its token expires."""
        version, data, deletion = self.data[identity.path("p", kind)]
        self.data[identity.path("p", kind)] = version, data, deletion + seconds

    def _put(self, identity: Identity, token: Token, release_version: str, slot: PathState) -> StoredToken:
        """In the version after the slot's."""
        path = identity.path("p", token.kind)
        rejected = slot.rejected_at if slot.newly_rejected(self.now()) else ""
        data = to_data(token, identity, release_version, rejected_at=rejected) | {"managed": "yes"}
        self.data[path] = slot.version + 1, data, token.expires_at
        return StoredToken(token, _ref(path, slot.version + 1, token.expires_at), release_version)

    def _is_newer(self, theirs: Token, ours: Token) -> bool:
        valid = theirs.expires_at > self.now() and theirs.is_of(ours.issued_by)
        return valid and theirs.newer_than(ours) and not theirs.is_ahead(self.now())


def _ref(path: str, version: int, deletion: float) -> VaultRef:
    just_before = datetime.fromtimestamp(deletion - 0.001, UTC).isoformat()  # as Vault's own ends are
    return VaultRef("fake", path, version, just_before)


@dataclass
class FakeSource:
    """A source that mints what it is told to, or raises."""

    pairs: list[TokenSet | Exception]
    mints: int = 0
    meanwhile: Callable[[], object] = lambda: None  # what happens elsewhere during a minting
    fallback: bool | None = None  # what the newest caller said

    def obtain(self, identity: Identity, deadline: Deadline, *, fallback: bool = False) -> TokenSet:
        self.mints += 1
        self.fallback = fallback
        self.meanwhile()
        made = self.pairs[min(self.mints, len(self.pairs)) - 1]
        if isinstance(made, Exception):
            raise made
        return made


@dataclass
class FakeReader:
    """A warm reader over a store."""

    store: FakeStore

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None:
        return self.store.read(identity, kind, deadline).stored


class Slots:
    """Stands in for Vaults without a limit: a slot for each identity, until the run is stopped."""

    @contextmanager
    def slot(self, stopping: Event) -> Iterator[bool]:
        yield not stopping.is_set()


@dataclass
class FakeTurn:
    """A turn with a failure that another caller left, if there is one; keeps what this one leaves."""

    waited: bool = False
    left: SourceError | None = None

    def failure(self, deadline: Deadline) -> SourceError | None:
        return self.left

    def failed(self, exc: SourceError) -> None:
        self.left = exc

    def responded(self) -> None:
        self.left = None


class FakeFlight:
    """A single flight that counts, and can let something happen while a caller waits for its turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.turn = FakeTurn()

    @contextmanager
    def __call__(self, identity: Identity, deadline: Deadline) -> Iterator[FakeTurn]:
        self.turns += 1
        self.meanwhile()
        yield self.turn


class ClosedBreaker(CircuitBreaker):
    """A circuit breaker that no outage opens."""

    def _open(self, exc: KlearstackVaultError, scope: Scope) -> None:
        pass
