"""The warm read: a stored token by one GET, without loading hvac and requests, which suffices for most calls."""

import logging
from typing import Any

from vault_plugin.errors import KlearstackVaultError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.vault import schema
from vault_plugin.vault.record import described, is_managed, stored_at
from vault_plugin.vault.transport import Transport, TransportError

_log = logging.getLogger(__name__)


class WarmReader:
    """Reads what VaultStore wrote; None for anything unexpected, which is left to the store and its error handling."""

    def __init__(
        self,
        transport: Transport,
        token: Secret | None,
        namespace: str | None,
        mount: str,
        prefix: str,
        *,
        accept_other_users: bool = False,
        version: int | None = None,
    ) -> None:
        self._transport = transport
        self._token = token
        self._namespace = namespace
        self._mount = mount
        self._prefix = prefix
        self._accept_other_users = accept_other_users
        self.blind = False  # Whether Vault failed at the newest read.
        # The KV versions to try: a second GET, where the first finds nothing, saves a request for the mount's version.
        self._versions: tuple[int, ...] = (version,) if version else (2, 1)

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None:
        """The stored token, valid or not; None if it cannot be read. Raises none of our errors."""
        ref = VaultRef(self._mount, identity.path(self._prefix, kind))
        headers = {"X-Vault-Request": "true"}
        if self._token:  # else Vault Agent or Proxy adds one
            headers["X-Vault-Token"] = self._token.reveal()
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        for version in self._versions:
            path = f"/v1/{ref.mount}/data/{ref.path}" if version == 2 else f"/v1/{ref.mount}/{ref.path}"
            try:
                response = self._transport.once("GET", path, headers, None, deadline.left())
                self.blind = failing = response.status == 429 or response.status >= 500
                if failing:  # Another request would fail, too.
                    return None
                if response.status != 200:
                    continue
                content = schema.parsed(response.body)
                stored = _stored(content, version, ref, identity, kind, self._accept_other_users)
            except TransportError:
                self.blind = True
                return None
            except (KlearstackVaultError, schema.MalformedError):
                return None
            self._versions = (version,)
            # The store reads again, and logs, where nothing is found.
            if stored and _log.isEnabledFor(logging.INFO):
                _log.info("read %s/%s: %s", ref.mount, ref.path, described(stored))
            return stored
        return None


def _stored(
    content: Any, version: int, ref: VaultRef, identity: Identity, kind: Kind, accept: bool
) -> StoredToken | None:
    data = schema.secret_v2(content) if version == 2 else schema.secret_v1(content)
    if data is not None and version == 2:
        metadata = data["metadata"]
        if not is_managed(metadata):
            return None
        ref = ref.of_version(metadata)
        data = data["data"]
    if data is None:
        return None
    return stored_at(ref, data, identity, kind, accept_other_users=accept)
