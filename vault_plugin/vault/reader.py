"""A fresh token in one GET, or nothing: the way that most calls take, kept free of hvac and requests."""

import logging
from typing import Any

from vault_plugin.errors import KlearstackVaultError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.vault import schema as answers
from vault_plugin.vault.record import described, is_ours, stored_at
from vault_plugin.vault.transport import Transport, TransportError

_log = logging.getLogger(__name__)


class WarmReader:
    """Reads what VaultStore wrote. Any surprise is None: the store is asked then, and all error rules live there."""

    def __init__(
        self,
        transport: Transport,
        token: Secret,
        namespace: str | None,
        mount: str,
        prefix: str,
        *,
        accept_other_users: bool = False,
    ) -> None:
        self._transport = transport
        self._token = token
        self._namespace = namespace
        self._mount = mount
        self._prefix = prefix
        self._accept_other_users = accept_other_users
        self.blind = False  # whether Vault failed at the newest look
        # The mount's KV versions to try: one more GET on a miss spares asking which it is.
        self._versions: tuple[int, ...] = (2, 1)

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None:
        """The stored token, dead or alive, or None. Raises nothing but bugs."""
        ref = VaultRef(self._mount, identity.path(self._prefix, kind))
        headers = {"X-Vault-Request": "true", "X-Vault-Token": self._token.reveal()}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        for version in self._versions:
            path = f"/v1/{ref.mount}/data/{ref.path}" if version == 2 else f"/v1/{ref.mount}/{ref.path}"
            try:
                answer = self._transport.once("GET", path, headers, None, deadline.left())
                self.blind = failing = answer.status == 429 or answer.status >= 500
                if failing:  # another request would fail, too
                    return None
                if answer.status != 200:
                    continue
                found = answers.parsed(answer.body)
                stored = _stored(found, version, ref, identity, kind, self._accept_other_users)
            except TransportError:
                self.blind = True
                return None
            except (KlearstackVaultError, answers.MalformedError):
                return None
            self._versions = (version,)
            if stored and _log.isEnabledFor(
                logging.INFO
            ):  # what is not found is logged by the store, which looks again
                _log.info("read %s/%s: %s", ref.mount, ref.path, described(stored))
            return stored
        return None


def _stored(
    answer: Any, version: int, ref: VaultRef, identity: Identity, kind: Kind, accept: bool
) -> StoredToken | None:
    data = answers.secret_v2(answer) if version == 2 else answers.secret_v1(answer)
    if data is not None and version == 2:
        metadata = data["metadata"]
        if not is_ours(metadata):
            return None
        ref = ref.of_version(metadata)
        data = data["data"]
    if data is None:
        return None
    return stored_at(ref, data, identity, kind, accept_other_users=accept)
