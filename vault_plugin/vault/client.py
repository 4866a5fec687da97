"""hvac's KV requests under our login, with Vault's errors as ours."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from hvac.adapters import JSONAdapter
from hvac.api.secrets_engines import KvV1, KvV2
from hvac.api.system_backend.wrapping import Wrapping
from hvac.exceptions import InvalidPath

from vault_plugin.errors import StoreError, StoreRefusedError
from vault_plugin.network.library_logs import unlogged
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import WrappingToken
from vault_plugin.vault import schema
from vault_plugin.vault.auth import Login
from vault_plugin.vault.connections import Response
from vault_plugin.vault.denials import Denials
from vault_plugin.vault.hvac_adapter import Limits, Session, adapter
from vault_plugin.vault.hvac_errors import (
    UnknownTokenError,
    is_in_no_namespace,
    is_unrouted,
    mount_missing,
    translated,
    wrong_version,
)
from vault_plugin.vault.retries import PermanentError
from vault_plugin.vault.transport import Transport, TransportError, always

T = TypeVar("T")


class Found(NamedTuple):
    """What a read found: the `secret`, None if there is none, and how long Vault took (seconds)."""

    secret: dict[str, Any] | None
    took: float


class VaultClient:
    """Authenticated access to the KV mounts of one Vault. Safe among threads.

    Every method raises StoreRefusedError, MountMissingError, StoreBusyError, StoreSettingsError or StoreError. None of them
    quotes what Vault said.
    """

    def __init__(
        self, transport: Transport, settings: Settings, reread: Callable[[Deadline], Settings] | None = None
    ) -> None:
        """`reread` gives the settings with the credentials of the moment; see Login."""
        self.transport = transport
        self._settings = settings
        self.login = Login(transport, settings, reread or (lambda _: settings))
        self._denials = Denials(self.login, settings.auth)

    def kv_version(self, mount: str, deadline: Deadline) -> int:
        """1 or 2, as Vault says. Raises MountMissingError if no KV engine is mounted there."""

        def request(vault: JSONAdapter) -> tuple[str, str, int]:
            try:
                return schema.mount(vault.get(f"/v1/sys/internal/ui/mounts/{mount}"))
            except InvalidPath as exc:
                if is_in_no_namespace(exc):
                    raise
            return schema.mount(None)

        (kind, path, version), _ = self._call("read of the mount's type", Limits(deadline), request)
        if kind not in ("kv", "generic") or path != mount:
            raise mount_missing(mount)
        return version

    def read(self, version: int, mount: str, path: str, deadline: Deadline) -> Found:
        """The secret at the path; on KV v2 with its metadata, also that of a deleted version."""

        def request(vault: JSONAdapter) -> dict[str, Any] | None:
            try:
                if version == 1:
                    return schema.secret_v1(KvV1(vault).read_secret(path, mount_point=mount))
                kv = KvV2(vault)
                found = kv.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
            except InvalidPath as exc:
                if is_unrouted(exc) or is_in_no_namespace(exc):
                    raise
                if version == 1 and schema.is_versioned(exc.json):
                    raise wrong_version(mount, 1) from None
                found = exc.json or {}  # KV v2 returns the metadata of a deleted version with status 404.
            return schema.secret_v1(found) if version == 1 else schema.secret_v2(found)

        def is_permanent(_: Response) -> bool:
            return self._reads_others(version, mount, path, deadline)

        try:
            secret, session = self._call("read", Limits(deadline, is_permanent=is_permanent), request)
        except PermanentError:
            return self._unreadable(version, mount, path, deadline)
        return Found(secret, session.took)

    def ask(
        self, what: str, path: str, deadline: Deadline, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """What a GET of an API path returns, or a POST with a body, which must be one that changes nothing.

        What is below `auth` and `sys` is asked for in the namespace of the login.
        """

        def request(vault: JSONAdapter) -> dict[str, Any]:
            if path.startswith(("auth/", "sys/")):
                vault.namespace = self.login.namespace
            response = vault.get(f"/v1/{path}") if body is None else vault.post(f"/v1/{path}", json=body)
            return schema.secret_v1(response) or {}

        return self._call(what, Limits(deadline), request)[0]

    def _reads_others(self, version: int, mount: str, path: str, deadline: Deadline) -> bool:
        """Whether Vault can read another path of the mount, where no secret is."""
        where = f"{mount}/data/{path}" if version == 2 else f"{mount}/{path}"
        token = self.login.token(deadline)
        headers = {"X-Vault-Request": "true"} | ({"X-Vault-Token": token} if token else {})
        if self._settings.vault_namespace:
            headers["X-Vault-Namespace"] = self._settings.vault_namespace
        try:
            response = self.transport.once("GET", f"/v1/{where}.none", headers, None, deadline.left())
        except TransportError:
            return False
        return response.status == 404 and b"no handler" not in response.body

    def _unreadable(self, version: int, mount: str, path: str, deadline: Deadline) -> Found:
        """The metadata of a secret that KV v2 cannot read. Raises StoreError if there is none."""

        def request(vault: JSONAdapter) -> dict[str, Any]:
            about: dict[str, Any] = KvV2(vault).read_secret_metadata(path, mount_point=mount)["data"]
            return about

        with suppress(StoreError, KeyError, TypeError, schema.MalformedError):
            if version == 2:
                about, session = self._call("read of the metadata", Limits(deadline), request)
                newest = about["current_version"]
                of_path = {"version": newest, "custom_metadata": about["custom_metadata"]}
                metadata = schema.version_metadata(about["versions"][str(newest)] | of_path)
                return Found({"data": None, "metadata": metadata}, session.took)
        delete = "kv metadata delete" if version == 2 else "kv delete"
        error = StoreError(
            f"Vault cannot read {mount}/{path} (status 500), though it can read other paths.",
            hint=f"Delete the secret there: vault {delete} -mount={mount} {path}",
        )
        error.for_all = False
        raise error from None

    def set_metadata(
        self, mount: str, path: str, life: int, custom: dict[str, str], deadline: Deadline
    ) -> None:
        """KV v2: set the lifetime of later versions (whole seconds) and the path's custom metadata."""

        def request(vault: JSONAdapter) -> object:
            return KvV2(vault).update_metadata(
                path,
                max_versions=1,
                delete_version_after=f"{life}s",
                custom_metadata=custom,
                mount_point=mount,
            )

        self._call("write of the metadata", Limits(deadline), request)

    def write(
        self,
        mount: str,
        path: str,
        data: dict[str, str],
        cas: int,
        deadline: Deadline,
        in_time: Callable[[], bool] = always,
    ) -> tuple[dict[str, Any], float]:
        """KV v2: write the version after `cas`; its metadata, and when the request was sent (monotonic seconds).

        Raises CasMismatchError if another version is the newest, which after a lost response may be this very one;
        OutdatedError if the request has to be sent again and `in_time` no longer holds.
        """

        def request(vault: JSONAdapter) -> dict[str, Any] | None:
            response = KvV2(vault).create_or_update_secret(path, data, cas=cas, mount_point=mount)
            return schema.version_metadata(response.get("data")) if isinstance(response, dict) else None

        metadata, session = self._call("write", Limits(deadline, in_time=in_time), request)
        if metadata is None:  # as KV v1 does, which would not delete the token
            with suppress(StoreError):
                self.write_v1(mount, f"data/{path}", {"data": ""}, deadline)
            raise wrong_version(mount, 2)
        return metadata, session.sent

    def write_v1(self, mount: str, path: str, data: dict[str, str], deadline: Deadline) -> None:
        """KV v1: replace the secret."""

        def request(vault: JSONAdapter) -> object:
            return KvV1(vault).create_or_update_secret(path, data, method="POST", mount_point=mount)

        self._call("write", Limits(deadline), request)

    def wrap(
        self, fields: Mapping[str, Any], ttl: int, deadline: Deadline, in_time: Callable[[], bool]
    ) -> WrappingToken:
        """Have Vault wrap these fields for so many seconds.

        Raises OutdatedError if the request has to be sent, or sent again, when `in_time` no longer holds.
        """

        def request(vault: JSONAdapter) -> WrappingToken:
            token, valid, end = schema.wrap_info(Wrapping(vault).wrap(dict(fields), ttl), ttl)
            return WrappingToken(Secret(token), valid, end)

        return self._call("wrapping of the token", Limits(deadline, in_time=in_time), request)[0]

    def call(self, what: str, deadline: Deadline, request: Callable[[JSONAdapter], T]) -> T:
        """Send a request of hvac's that may be repeated; its result."""
        return self._call(what, Limits(deadline), request)[0]

    def close(self, deadline: Deadline) -> None:
        """Revoke the token of our login."""
        self.login.revoke(deadline)

    def _call(self, what: str, limits: Limits, request: Callable[[JSONAdapter], T]) -> tuple[T, Session]:
        """Send a request under our login, and again after a new login if the token has expired or lacks a new policy."""
        token = self.login.token(limits.deadline)
        try:
            return self._sent(token, what, limits, request)
        except UnknownTokenError as denial:
            renewed = self.login.renewed(token, limits.deadline)
            if renewed is None:
                raise self._explained(denial, token, limits.deadline) from None
        except StoreRefusedError as denial:
            renewed = self.login.with_new_policies(token, limits.deadline)
            if renewed is None:
                raise self._explained(denial, token, limits.deadline) from None
        return self._sent(renewed, what, limits, request)

    def _explained(self, denial: StoreRefusedError, token: str, deadline: Deadline) -> StoreRefusedError:
        return self._denials.explained(denial, token, self.transport.only_denied, deadline)

    def _sent(
        self, token: str, what: str, limits: Limits, request: Callable[[JSONAdapter], T]
    ) -> tuple[T, Session]:
        session = Session(self.transport, limits)
        with unlogged(), translated(what, self._settings.mount, self._settings.path_prefix):
            return request(adapter(session, token, self._settings.vault_namespace)), session
