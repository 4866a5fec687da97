"""Tokens in a KV v1 mount, which has neither check-and-set nor expiry: readers go by `expires_at`."""

import logging
from math import floor
from typing import Any

from vault_plugin.errors import TokenError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import REJECTED_EVERY, PathState, StoredToken, VaultRef
from vault_plugin.vault.kv import Engine, Task
from vault_plugin.vault.record import described, manifest_in, marks, rejected_at

_log = logging.getLogger(__name__)


class Kv1(Engine):
    """See Engine. Of several writers at the same time the last one wins."""

    version = 1

    def write(self, task: Task, state: PathState) -> StoredToken:
        """Write a token, unless another one came first: a read right before is all that KV v1 allows."""
        newest = self.read(task.identity, task.token.kind, task.deadline)
        first = newest.stored
        if first and first != state.stored and self.stays(first, task.token):
            return first
        ttl = floor(self.left(task))
        if ttl < 1:
            raise TokenError(
                "The token expired before it could be stored.", hint="Its lifetime is too short."
            )
        ref, stored = task.ref, StoredToken(task.token, task.ref, task.data["release_version"])
        data = self.data(task, newest) | marks(self.manifest_of(newest)) | {"ttl": f"{ttl}s"}
        self.client.write_v1(ref.mount, ref.path, data, task.deadline)
        _log.info("wrote %s/%s: %s", ref.mount, ref.path, described(stored))
        return stored

    def overwrite(
        self, identity: Identity, kind: Kind, state: PathState, data: dict[str, str], deadline: Deadline
    ) -> None:
        """See Engine."""
        ref = self.ref(identity, kind)
        if self.read(identity, kind, deadline).stored == state.stored:
            data = data | marks(state.manifest) | {"ttl": f"{REJECTED_EVERY:.0f}s"}
            self.client.write_v1(ref.mount, ref.path, data, deadline)

    def _state_of(self, ref: VaultRef, secret: dict[str, Any], identity: Identity, kind: Kind) -> PathState:
        stored = self._stored_at(ref, secret, identity, kind)
        return PathState(stored=stored, rejected_at=rejected_at(secret), manifest=manifest_in(secret))
