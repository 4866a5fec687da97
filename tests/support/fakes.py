"""Hand-written stand-ins for the ports, and tokens to put into them."""

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor, inf
from threading import Event
from typing import Any, NamedTuple

from vault_plugin.broker.ports import StoredPaths
from vault_plugin.bulk.circuit_breaker import CircuitBreaker
from vault_plugin.bulk.scope import Scope
from vault_plugin.errors import KlearstackVaultError, SourceError, StoreBusyError, StoreError, TokenError
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.names import checked
from vault_plugin.tokens.place import Place
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef, WrappingToken
from vault_plugin.vault.connections import Response
from vault_plugin.vault.record import (
    REJECTED_AT,
    rejected_at,
    stored_at,
    to_data,
    unmanaged,
    without_token,
)


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
    """A JWT of that kind, issued NOW for 900 s unless `claims` says otherwise; its signature is invalid."""
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
    """A token issued at `at` (Unix seconds), by that endpoint, with a lifetime of `life` seconds."""
    about = {"iat": at, "exp": at + life, "jti": jti} | claims
    return Token.from_jwt(jwt(kind, **about), kind)._replace(issued_by=by)


def pair(at: int = NOW, life: int = 900, jti: str = "j", by: str = "") -> TokenSet:
    """Both tokens of one mint."""
    return TokenSet(
        token(Kind.ACCESS, at=at, life=life, jti=jti, by=by),
        token(Kind.REFRESH, at=at, life=86400, jti=jti, by=by),
        "1",
    )


@dataclass
class FakeClock:
    """A clock that tests set; its `sleep` returns at once."""

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
        self.wrapped: list[dict[str, Any]] = []
        self.wrap_error: StoreError | None = None

    @contextmanager
    def mint(self, identity: Identity, deadline: Deadline) -> Iterator[None]:
        if self.busy:
            raise self.busy
        yield

    def try_writing(self, identity: Identity, kind: Kind, state: PathState, deadline: Deadline) -> PathState:
        self.tries += 1
        if self.read_only:
            raise self.read_only
        return state

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
            raise unmanaged()
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
        state: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken:
        before, self.before_write = self.before_write, lambda: None
        before()
        if self.read_only:
            raise self.read_only
        if state.stored and self._is_newer(state.stored.token, token):
            return state.stored
        newest = self.read(identity, token.kind, deadline)
        if newest.version != state.version and newest.stored:
            theirs = newest.stored.token
            keep = not token.newer_than(theirs) or theirs.expires_at - self.now() >= theirs.margin(inf)
            if (keep and not theirs.is_ahead(self.now())) or not theirs.is_of(token.issued_by):
                return newest.stored
        rejected = newest.rejected_at or state.rejected_at
        state = state._replace(version=newest.version, rejected_at=rejected)
        return self._put(identity, token, release_version, state)

    def repair(self, identity: Identity, state: PathState, deadline: Deadline) -> PathState:
        """Like VaultStore: the same token in a new version, or none if it has expired."""
        self.repairs += 1
        if self.repair_error:
            raise self.repair_error
        assert state.stored
        stored = self._put(identity, state.stored.token, state.stored.release_version, state)
        alive = stored.token.expires_at > self.now()
        return PathState(state.version + 1, None, stored if alive else None)

    def reject(self, identity: Identity, state: PathState, deadline: Deadline) -> None:
        if self.read_only:
            raise self.read_only
        path = identity.path("p", Kind.ACCESS)
        version, data, deletion = self.data[path]
        if version == state.version and not state.newly_rejected(self.now()):
            mark = {REJECTED_AT: format_rfc3339(ceil(self.now()))}
            self.data[path] = version + 1, without_token(data, Kind.ACCESS) | mark, deletion

    def wrap(
        self, fields: Mapping[str, Any], ttl: float, left: Callable[[], float], deadline: Deadline
    ) -> WrappingToken:
        if self.wrap_error:
            raise self.wrap_error
        seconds = floor(min(ttl, left()))
        if seconds < 1:
            raise TokenError("too short")
        self.wrapped.append(dict(fields))
        return WrappingToken(Secret(f"hvs.wrapping-{len(self.wrapped)}"), seconds, self.now() + seconds)

    def inventory(self, deadline: Deadline) -> StoredPaths:
        raise NotImplementedError  # a real Vault can be listed

    def delay(self, identity: Identity, kind: Kind, seconds: float) -> None:
        """Delay the deletion of what is stored to so many seconds after its token expires."""
        version, data, deletion = self.data[identity.path("p", kind)]
        self.data[identity.path("p", kind)] = version, data, deletion + seconds

    def _put(self, identity: Identity, token: Token, release_version: str, state: PathState) -> StoredToken:
        """Write the version after the state's."""
        path = identity.path("p", token.kind)
        rejected = state.rejected_at if state.newly_rejected(self.now()) else ""
        data = to_data(token, identity, release_version, rejected_at=rejected) | {"managed": "yes"}
        self.data[path] = state.version + 1, data, token.expires_at
        return StoredToken(token, _ref(path, state.version + 1, token.expires_at), release_version)

    def _is_newer(self, theirs: Token, ours: Token) -> bool:
        valid = theirs.expires_at > self.now() and theirs.is_of(ours.issued_by)
        return valid and theirs.newer_than(ours) and not theirs.is_ahead(self.now())


def _ref(path: str, version: int, deletion: float) -> VaultRef:
    just_before = datetime.fromtimestamp(deletion - 0.001, UTC).isoformat()  # as Vault's own ends are
    return VaultRef("fake", path, version, just_before)


@dataclass
class FakeSource:
    """A source that returns or raises what the test lists."""

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
    blind: bool = False

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None:
        return self.store.read(identity, kind, deadline).stored


class Slots:
    """Stands in for Vaults without a limit: a slot for each identity, until the run is stopped."""

    @contextmanager
    def slot(self, stopping: Event) -> Iterator[bool]:
        yield not stopping.is_set()


@dataclass
class FakeLockHandle:
    """A held lock with the failure that another caller shared, if any; keeps what this one shares."""

    waited: bool = False
    left: SourceError | None = None

    def failure(self, deadline: Deadline) -> SourceError | None:
        return self.left

    def share_failure(self, exc: SourceError) -> None:
        self.left = exc

    def clear_failure(self) -> None:
        self.left = None


class FakeLock:
    """A lock that counts how often it is acquired, and can let something happen while a caller waits for it."""

    def __init__(self) -> None:
        self.acquired = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.handle = FakeLockHandle()

    @contextmanager
    def __call__(self, identity: Identity | Place, deadline: Deadline) -> Iterator[FakeLockHandle]:
        self.acquired += 1
        self.meanwhile()
        yield self.handle


class ClosedBreaker(CircuitBreaker):
    """A circuit breaker that no outage opens."""

    def _open(self, exc: KlearstackVaultError, scope: Scope) -> None:
        pass


def response(status: int, body: object) -> Response:
    """A response of Vault with that body, as JSON."""
    headers = http.client.HTTPMessage()
    headers["Content-Type"] = "application/json"
    return Response(status, headers, json.dumps(body).encode(), time.monotonic())
