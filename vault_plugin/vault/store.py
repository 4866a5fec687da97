"""The store of tokens in Vault's KV secrets engine, of version 1 or 2."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

from vault_plugin.timing.clock import ServerClock, format_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import PathState, StoredToken, WrappingToken
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.inventory import VaultPaths
from vault_plugin.vault.kv import Engine
from vault_plugin.vault.kv1 import Kv1
from vault_plugin.vault.kv2 import Kv2
from vault_plugin.vault.record import to_data, without_token
from vault_plugin.vault.token_wrapping import wrap


class VaultStore:
    """Tokens at `<mount>/<prefix>/<company>/<user>/access` and `.../refresh`. Safe among threads and processes.

    Its methods raise StoreError and its branches; ForeignSecretError, if the path holds an unmanaged secret.
    """

    def __init__(
        self,
        client: VaultClient,
        clock: ServerClock,
        mount: str,
        prefix: str,
        *,
        latest: Callable[[], float] | None = None,
        accept_other_users: bool = False,
        version: int | None = None,
        manifest: str = "",
    ) -> None:
        """`latest` gives the time of the clock that is furthest ahead, Vault's or the endpoint's (Unix seconds).

        `version` is that of the KV secrets engine, if it is known. What is written belongs to the manifest of that name;
        if it is empty, to the same one as before.
        """
        self._client = client
        self._clock = clock
        self._mount = mount
        self._prefix = prefix
        self._latest = latest or clock.now
        self._accept_other_users = accept_other_users
        self._version = version
        self._manifest = manifest
        self._found: Engine | None = None

    @contextmanager
    def mint(self, identity: Identity, deadline: Deadline) -> Iterator[None]:
        """Mint and store a new pair of tokens in the block, which begins when Vault accepts enough requests for that.

        Raises StoreBusyError if its rate limit quota leaves too few of them before the deadline.
        """
        with self._client.transport.quota.mint(deadline):
            while self._client.transport.quota.is_throttled:
                # Only a request can find out that the quota has room again; a read waits until it may be sent.
                self.read(identity, Kind.ACCESS, deadline.half())
            yield

    def try_writing(self, identity: Identity, kind: Kind, state: PathState, deadline: Deadline) -> PathState:
        """Find out, before a token is minted, whether it could be stored where `state` was read; the state after that.

        This writes the path's metadata, which deletes nothing and changes no lifetime. KV v1 has none, and nothing is
        found out.
        """
        engine = self._engine(deadline)
        if isinstance(engine, Kv2):
            engine.rewrite_metadata(identity, kind, state, deadline)
        return state

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState:
        """The state of a token's path, which a later `write` needs."""
        return self._engine(deadline).read(identity, kind, deadline)

    def write(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        state: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken:
        """Store a token that was minted `age` seconds ago where `state` was read before; what is stored in the end.

        That is another caller's token, if it came first or is newer. Raises TokenError if the token expires too soon to be
        stored, and StoreError also if Vault would keep it too long.
        """
        engine = self._engine(deadline)
        if state.stored and engine.outranks(state.stored, token):
            return state.stored
        return engine.write(engine.task(identity, token, release_version, state, deadline, age), state)

    def repair(self, identity: Identity, state: PathState, deadline: Deadline) -> PathState:
        """Have Vault delete in time what it would keep after its JWT expires; the state of the path after that.

        A new version replaces the token, or one without a token, if it is too old for that. KV v1 deletes nothing.
        """
        engine = self._engine(deadline)
        return engine.repair(identity, state, deadline) if isinstance(engine, Kv2) else state

    def reject(self, identity: Identity, state: PathState, deadline: Deadline) -> None:
        """Remove the access token in `state`, by a version without a token, which says when it was rejected.

        Does nothing within REJECTED_EVERY seconds of the last time, or if another token came first.
        """
        now, stored = self._clock.now(), state.stored
        if stored is None or state.newly_rejected(now):
            return
        at = format_rfc3339(ceil(now))
        data = to_data(stored.token, identity, stored.release_version, rejected_at=at)
        data = without_token(data, stored.token.kind)
        self._engine(deadline).overwrite(identity, stored.token.kind, state, data, deadline)

    def wrap(
        self, fields: Mapping[str, Any], ttl: float, left: Callable[[], float], deadline: Deadline
    ) -> WrappingToken:
        """Have Vault wrap these fields; see token_wrapping.py. Raises TokenError if they expire too soon for that."""
        return wrap(self._client, fields, ttl, left, deadline)

    def checks_and_sets(self, deadline: Deadline) -> bool:
        """Whether one of several writers at the same time wins, and the others learn of it (KV v2)."""
        return isinstance(self._engine(deadline), Kv2)

    def inventory(self, deadline: Deadline) -> VaultPaths:
        """What is stored below the prefix."""
        engine = self._engine(deadline)
        return VaultPaths(engine, self._mount, self._prefix, accept_other_users=self._accept_other_users)

    def _engine(self, deadline: Deadline) -> Engine:
        """The engine of the mount, found out by one request unless it is known."""
        if self._found is None:
            version = self._version or self._client.kv_version(self._mount, deadline)
            kind = Kv2 if version == 2 else Kv1
            self._found = kind(
                self._client,
                self._clock,
                self._mount,
                self._prefix,
                latest=self._latest,
                accept_other_users=self._accept_other_users,
                manifest=self._manifest,
            )
        return self._found
