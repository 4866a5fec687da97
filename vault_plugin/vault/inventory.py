"""What one KV mount holds below the prefix: it is listed, looked at without keeping a token, and deleted for good."""

import logging
from collections.abc import Mapping
from typing import Any

from hvac.adapters import JSONAdapter
from hvac.api.secrets_engines import KvV1, KvV2
from hvac.exceptions import InvalidPath

from vault_plugin.errors import ForeignSecretError, SettingsError
from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Holding, Place, is_segment
from vault_plugin.tokens.stored import StoredToken, VaultRef
from vault_plugin.vault import schema
from vault_plugin.vault.hvac_errors import is_unrouted
from vault_plugin.vault.kv import Engine
from vault_plugin.vault.record import is_managed, issuer_in, manifest_in, stored_at

_log = logging.getLogger(__name__)


class VaultPaths:
    """The paths of tokens below `prefix`. Safe among threads. Its methods raise StoreError and its branches.

    Ours is a path `<prefix>/<company>/<user>/access` or `.../refresh` that Engine.read would accept: on KV v2 its
    custom_metadata says that we manage it, and its data, if it has any, is a record of the identity of that path.
    """

    def __init__(self, engine: Engine, mount: str, prefix: str, *, accept_other_users: bool) -> None:
        self._engine = engine
        self._mount = mount
        self._prefix = prefix
        self._accept_other_users = accept_other_users

    def companies(self, deadline: Deadline) -> list[str]:
        """The companies below the prefix, as segments; other folders there may be among them."""
        return self._folders(self._prefix, deadline)

    def places(self, company: str, deadline: Deadline) -> list[Place]:
        """The places of that company, given as a segment; other folders there may be among them."""
        return [Place(company, user) for user in self._folders(f"{self._prefix}/{company}", deadline)]

    def look(self, place: Place, kind: Kind, deadline: Deadline, *, thorough: bool = False) -> Holding | None:
        """What the path of a token holds; None if there is nothing. Raises ForeignSecretError if it is not ours.

        Without `thorough`, nothing is found where KV v2 has metadata and no version, as a write leaves it that was broken
        off: that takes another request.
        """
        ref = VaultRef(self._mount, place.path(self._prefix, kind))
        secret = self._engine.client.read(self._engine.version, ref.mount, ref.path, deadline).secret
        if secret is None:
            return self._bare(place, kind, ref, deadline) if thorough else None
        is_v2 = self._engine.version == 2
        about: Mapping[str, Any] = secret["metadata"] if is_v2 else {}
        data = secret["data"] if is_v2 else secret
        if is_v2:
            if not is_managed(about):
                raise _not_ours()
            ref = ref.of_version(about)
        identity = _owner(place, data) if data else place.identity
        holding = Holding(
            place,
            kind,
            ref,
            self._engine.clock.now(),
            identity=identity,
            manifest=manifest_in(about.get("custom_metadata") if is_v2 else data),
            issued_by=issuer_in(about),
        )
        stored = self._stored(holding, data) if data else None
        return _with_token(holding, stored) if stored else _without_token(holding)

    def _stored(self, holding: Holding, data: Mapping[str, Any]) -> StoredToken | None:
        owner = _owner(holding.place, data)
        try:
            return stored_at(
                holding.ref, data, owner, holding.kind, accept_other_users=self._accept_other_users
            )
        except ForeignSecretError:
            raise _not_ours() from None

    def delete(self, place: Place, kind: Kind, deadline: Deadline, manifest: str | None = None) -> bool:
        """Delete a path of ours, on KV v2 all versions and the metadata; False if there is nothing.

        With a `manifest`, only if the path belongs to the manifest of that name. Raises ForeignSecretError.
        """
        found = self.look(place, kind, deadline, thorough=True)
        if found is None or (manifest is not None and found.manifest != manifest):
            return False
        path = found.ref.path

        def request(vault: JSONAdapter) -> object:
            if self._engine.version == 1:
                return KvV1(vault).delete_secret(path, mount_point=self._mount)
            return KvV2(vault).delete_metadata_and_all_versions(path, mount_point=self._mount)

        self._engine.client.call("deletion", deadline, request)
        _log.info("deleted %s/%s", self._mount, path)
        return True

    def _bare(self, place: Place, kind: Kind, ref: VaultRef, deadline: Deadline) -> Holding | None:
        """What a path without any version holds."""
        if self._engine.version == 1:
            return None

        def request(vault: JSONAdapter) -> dict[str, Any]:
            try:
                return schema.of_path(KvV2(vault).read_secret_metadata(ref.path, self._mount))
            except InvalidPath:
                return {}

        about = self._engine.client.call("read of the metadata", deadline, request)
        if not is_managed(about):
            return None
        manifest, now = manifest_in(about["custom_metadata"]), self._engine.clock.now()
        return Holding(place, kind, ref, now, identity=place.identity, manifest=manifest)

    def _folders(self, path: str, deadline: Deadline) -> list[str]:
        """The folders there whose names can be those of a company or a user."""

        def request(vault: JSONAdapter) -> list[str]:
            kv = KvV1(vault) if self._engine.version == 1 else KvV2(vault)
            try:
                return schema.keys(kv.list_secrets(path, self._mount))
            except InvalidPath as exc:
                if is_unrouted(exc):
                    raise
                return []  # Nothing is stored there.

        found = self._engine.client.call("listing", deadline, request)
        return [name[:-1] for name in found if name.endswith("/") and is_segment(name[:-1])]


def _owner(place: Place, data: Mapping[str, Any]) -> Identity:
    """The identity that the data names, which must be that of the place. Raises ForeignSecretError."""
    try:
        owner = Identity(data.get("user_id", ""), data.get("company_name", ""))
    except SettingsError:
        raise _not_ours() from None
    if Place.of(owner) != place:
        raise _not_ours()
    return owner


def _with_token(holding: Holding, stored: StoredToken) -> Holding:
    token, deletion = stored.token, parse_rfc3339(stored.ref.deletion_time)
    ends = min(token.expires_at, deletion or token.expires_at)
    created = parse_rfc3339(stored.ref.created_time)
    return holding._replace(
        expires_at=ends,
        life=ends - minted if (minted := token.issued_at or created) else None,
        minted_at=minted,
        issued_by=token.issued_by or holding.issued_by,
    )


def _without_token(holding: Holding) -> Holding:
    """What is known of a token that has been deleted."""
    created, deletion = parse_rfc3339(holding.ref.created_time), parse_rfc3339(holding.ref.deletion_time)
    ends = None if deletion is None or deletion > holding.now else deletion
    return holding._replace(expires_at=ends, minted_at=created)


def _not_ours() -> ForeignSecretError:
    """The error for a secret that is left alone."""
    return ForeignSecretError(
        "The Vault path holds a secret that klearstack-vault does not manage; it was left alone."
    )
