"""What the broker needs from its surroundings, as protocols: Vault, the endpoint, and a lock per identity."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from vault_plugin.errors import SourceError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.place import Holding, Place
from vault_plugin.tokens.stored import PathState, StoredToken, WrappingToken


class TokenReader(Protocol):
    """A quick read that may miss a token: None does not say that there is none. `blind`: Vault failed at the newest one."""

    blind: bool

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None: ...


class StoredPaths(Protocol):
    """What is stored below the prefix. See vault.inventory."""

    def companies(self, deadline: Deadline) -> list[str]: ...
    def places(self, company: str, deadline: Deadline) -> list[Place]: ...
    def look(
        self, place: Place, kind: Kind, deadline: Deadline, *, thorough: bool = False
    ) -> Holding | None: ...
    def delete(self, place: Place, kind: Kind, deadline: Deadline, manifest: str | None = None) -> bool: ...


class TokenStore(Protocol):
    """Where tokens are stored. `write` returns what is stored at the end, which may be another caller's token.

    `mint` is the context in which new tokens are requested and written; it waits until Vault has capacity for that.
    `try_writing` finds out beforehand whether they can be stored. `repair` corrects the deletion time of a token that
    Vault would keep beyond its `exp`. `reject` removes the access token of this state. `wrap` puts fields behind a wrapping
    token of `ttl` seconds, which expires before they do, in the seconds that `left` returns.
    """

    def mint(self, identity: Identity, deadline: Deadline) -> AbstractContextManager[None]: ...
    def try_writing(
        self, identity: Identity, kind: Kind, state: PathState, deadline: Deadline
    ) -> PathState: ...
    def checks_and_sets(self, deadline: Deadline) -> bool: ...
    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState: ...
    def write(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        state: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken: ...
    def repair(self, identity: Identity, state: PathState, deadline: Deadline) -> PathState: ...
    def reject(self, identity: Identity, state: PathState, deadline: Deadline) -> None: ...
    def wrap(
        self, fields: Mapping[str, Any], ttl: float, left: Callable[[], float], deadline: Deadline
    ) -> WrappingToken: ...
    def inventory(self, deadline: Deadline) -> StoredPaths: ...


class TokenSource(Protocol):
    """Mints tokens. `fallback`: the caller has a stored token to use if that fails, and should not wait for long."""

    def obtain(self, identity: Identity, deadline: Deadline, *, fallback: bool = False) -> TokenSet: ...


class LockHandle(Protocol):
    """The lock of an identity, while it is held. `waited`: another caller of this host held it just before."""

    waited: bool

    def failure(self, deadline: Deadline) -> SourceError | None:
        """Return how the endpoint failed for an earlier holder, if a request by this deadline would fail alike.

        Only a failure that happened after the start of the call that has this deadline counts.
        """

    def share_failure(self, exc: SourceError) -> None:
        """Let the next holders know that the endpoint failed."""

    def clear_failure(self) -> None:
        """Let the next holders know that the endpoint responds."""


class Lock(Protocol):
    """Holds the lock of an identity: one caller at a time on this host (single-flight)."""

    def __call__(
        self, identity: Identity | Place, deadline: Deadline
    ) -> AbstractContextManager[LockHandle]: ...
