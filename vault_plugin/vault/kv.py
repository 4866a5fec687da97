"""What the two versions of Vault's KV secrets engine share: reads, and which of two tokens for a path stays."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from vault_plugin.errors import ForeignSecretError
from vault_plugin.timing.clock import ServerClock
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef
from vault_plugin.vault.client import VaultClient
from vault_plugin.vault.lifetime import ResponseTimes
from vault_plugin.vault.record import REJECTED_AT, described, stored_at, to_data

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A token to be written to a path; it expires at `end` (Unix seconds by Vault's clock).

    `limits` are the lifetimes (seconds; None: without end) that Vault gave to its versions instead of longer ones.
    """

    identity: Identity
    token: Token
    ref: VaultRef
    data: dict[str, str]
    end: float
    times: ResponseTimes
    deadline: Deadline
    limits: set[int | None] = field(default_factory=set)


class Engine(ABC):
    """The tokens in one mount, below one prefix. Safe among threads and processes."""

    def __init__(
        self,
        client: VaultClient,
        clock: ServerClock,
        mount: str,
        prefix: str,
        *,
        latest: Callable[[], float],
        accept_other_users: bool,
        manifest: str = "",
    ) -> None:
        self.client = client
        self.clock = clock
        self._mount = mount
        self._prefix = prefix
        self._latest = latest
        self._accept_other_users = accept_other_users
        self._manifest = manifest

    @property
    @abstractmethod
    def version(self) -> int:
        """The version of the KV secrets engine."""

    @abstractmethod
    def write(self, task: Task, state: PathState) -> StoredToken:
        """Write the token where `state` was read; what is stored in the end. See VaultStore."""

    @abstractmethod
    def overwrite(
        self, identity: Identity, kind: Kind, state: PathState, data: dict[str, str], deadline: Deadline
    ) -> None:
        """Write data without a token where `state` was read, unless another token came first."""

    @abstractmethod
    def _state_of(self, ref: VaultRef, secret: dict[str, Any], identity: Identity, kind: Kind) -> PathState:
        """The state of a path with this secret. Raises ForeignSecretError."""

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState:
        """See VaultStore."""
        ref = self.ref(identity, kind)
        found = self.client.read(self.version, ref.mount, ref.path, deadline)
        try:
            state = PathState() if found.secret is None else self._state_of(ref, found.secret, identity, kind)
        except ForeignSecretError:
            _log.info("read %s/%s: an unmanaged secret", ref.mount, ref.path)
            raise
        _log.info("read %s/%s: %s", ref.mount, ref.path, described(state.stored))
        return state._replace(took=found.took)

    def ref(self, identity: Identity, kind: Kind) -> VaultRef:
        """The path of a token."""
        return VaultRef(self._mount, identity.path(self._prefix, kind))

    def task(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        state: PathState,
        deadline: Deadline,
        age: float,
    ) -> Task:
        """The task to write a token that was minted `age` seconds ago where `state` was read."""
        now = self.clock.now()
        return Task(
            identity,
            token,
            self.ref(identity, token.kind),
            to_data(token, identity, release_version),
            min(token.expires_at, now + token.life - age),
            ResponseTimes(state.took),
            deadline,
        )

    def data(self, task: Task, state: PathState) -> dict[str, str]:
        """The data to write over `state`, with the mark of a new rejection, which another writer may have left there."""
        marked = state.newly_rejected(self.clock.now())
        return task.data | ({REJECTED_AT: state.rejected_at} if marked else {})

    def manifest_of(self, state: PathState) -> str:
        """The name of the manifest that a path with this state belongs to once we have written to it."""
        return self._manifest or state.manifest

    def left(self, task: Task) -> float:
        """Seconds until the token expires."""
        return task.end - self.clock.now()

    def stays(self, first: StoredToken, ours: Token) -> bool:
        """Whether a token that another caller wrote first stays, so that all of them use one, unless it is old by now."""
        now = self.clock.now()
        left = first.left(now, now)
        if left <= 0 or first.token.value == ours.value or not first.token.is_of(ours.issued_by):
            return left > 0  # The caller rejects a token of another endpoint.
        return not first.token.is_ahead(self._latest()) and (
            not ours.newer_than(first.token) or left >= first.token.margin(inf)
        )

    def outranks(self, stored: StoredToken, ours: Token) -> bool:
        """Whether the stored token is valid, of the same endpoint, and newer than ours; one with wrong dates never is."""
        now = self.clock.now()
        valid = stored.left(now, now) > 0 and stored.token.is_of(ours.issued_by)
        return valid and stored.token.newer_than(ours) and not stored.token.is_ahead(self._latest())

    def _stored_at(
        self, ref: VaultRef, data: dict[str, Any], identity: Identity, kind: Kind
    ) -> StoredToken | None:
        return stored_at(ref, data, identity, kind, accept_other_users=self._accept_other_users)
