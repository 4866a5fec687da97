"""Handles on real Vaults: what a test does to them as their administrator."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import hvac
from hvac.exceptions import InvalidPath, InvalidRequest

from support.waiting import until


def configure(admin: Any, mount: str, config: dict[str, str]) -> None:
    """Configure a KV v2 engine, as soon as the server has prepared it, which takes a moment after the mount."""

    def done() -> bool:
        try:
            admin.write_data(f"{mount}/config", data=config)
        except InvalidRequest as failure:
            if "pgrading" not in str(failure):
                raise
            return False
        return True

    until(done)


class Vault:
    """A running Vault or OpenBao and its root token."""

    def __init__(self, address: str, root_token: str, **client: Any) -> None:
        self.address = address
        self.root_token = root_token
        self.admin: Any = hvac.Client(address, token=root_token, **client)

    def mount(self, version: str, **config: str) -> str:
        """Mount a fresh KV engine, `v1` or `v2`; its name. `config` is that of KV v2."""
        name = f"kv-{uuid.uuid4().hex[:8]}"
        self.admin.sys.enable_secrets_engine("kv", path=name, options={"version": version.removeprefix("v")})
        if version == "v2":
            configure(self.admin, name, config)
        return name

    def namespace(self, parent: str = "") -> str:
        """Make a namespace with a KV v2 at `kv`; its path."""
        name = f"ns-{uuid.uuid4().hex[:8]}"
        outside: Any = hvac.Client(self.address, token=self.root_token, namespace=parent or None)
        outside.write_data(f"sys/namespaces/{name}", data={})
        outside.adapter.close()
        name = f"{parent}/{name}" if parent else name
        inside: Any = hvac.Client(self.address, token=self.root_token, namespace=name)
        inside.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
        configure(inside, "kv", {})
        inside.adapter.close()
        return name

    def policy_token(self, policy: str) -> str:
        """A token that may do what this policy (HCL) says, and nothing else."""
        name = f"policy-{uuid.uuid4().hex[:8]}"
        self.admin.sys.create_or_update_policy(name, policy)
        made = self.admin.auth.token.create(policies=[name], no_default_policy=True, ttl="1h")
        return cast(str, made["auth"]["client_token"])

    def approle(
        self, policy: str, mount: str = "approle", **role: Any
    ) -> tuple[str, str, Callable[[], set[str]]]:
        """A role with this policy: its role id, a secret id, and what lists the accessors of all tokens."""
        name = f"role-{uuid.uuid4().hex[:8]}"
        if f"{mount}/" not in self.admin.sys.list_auth_methods()["data"]:
            self.admin.sys.enable_auth_method("approle", path=mount)
        self.admin.sys.create_or_update_policy(name, policy)
        roles = self.admin.auth.approle
        roles.create_or_update_approle(name, token_policies=[name], mount_point=mount, **role)
        role_id = roles.read_role_id(name, mount_point=mount)["data"]["role_id"]
        secret_id = roles.generate_secret_id(name, mount_point=mount)["data"]["secret_id"]
        return role_id, secret_id, self.accessors

    @contextmanager
    def logins(
        self,
        method: str,
        mount: str,
        config: dict[str, Any],
        role: dict[str, Any],
        kv: str,
        *,
        place: str = "role/ci",
    ) -> Iterator[None]:
        """An auth method for the length of a `with` block; its role, at that place, may use that KV v2 mount."""
        self.admin.sys.enable_auth_method(method, path=mount)
        if config:
            self.admin.write_data(f"auth/{mount}/config", data=config)
        self.admin.write_data(f"auth/{mount}/{place}", data=role | {"token_policies": kv})
        self.admin.sys.create_or_update_policy(
            kv,
            f"""
            path "{kv}/data/*"     {{ capabilities = ["update", "read"] }}
            path "{kv}/metadata/*" {{ capabilities = ["create", "update"] }}
            """,
        )
        try:
            yield
        finally:
            self.admin.sys.disable_auth_method(mount)

    def accessors(self) -> set[str]:
        """Those of all tokens that there are."""
        found = self.admin.list("auth/token/accessors")  # None in a namespace without tokens
        return set(found["data"]["keys"]) if found else set()

    def is_v2(self, mount: str) -> bool:
        about = self.admin.read(f"sys/internal/ui/mounts/{mount}")["data"]
        return bool(about["options"]["version"] == "2")

    def read(self, mount: str, path: str) -> dict[str, Any] | None:
        """The data of a secret; None if there is none."""
        kv = self.admin.secrets.kv
        try:
            if self.is_v2(mount):
                answer = kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)[
                    "data"
                ]
            else:
                answer = kv.v1.read_secret(path, mount_point=mount)
        except InvalidPath:
            return None
        return cast("dict[str, Any]", answer["data"])

    def write(self, mount: str, path: str, data: dict[str, str]) -> None:
        """Write a secret as somebody who has never heard of us."""
        kv = self.admin.secrets.kv
        (kv.v2 if self.is_v2(mount) else kv.v1).create_or_update_secret(path, data, mount_point=mount)

    def metadata(self, mount: str, path: str) -> dict[str, Any]:
        """KV v2's metadata of a path."""
        answer = self.admin.secrets.kv.v2.read_secret_metadata(path, mount_point=mount)
        return cast("dict[str, Any]", answer["data"])

    def set_life(self, mount: str, path: str, life: str) -> None:
        """Change a path's `delete_version_after` as another writer would."""
        self.admin.secrets.kv.v2.update_metadata(path, mount_point=mount, delete_version_after=life)

    def keep_too_long(self, mount: str, path: str, life: str) -> None:
        """Write a path's newest version again with this life, as a write does that was held back."""
        kv = self.admin.secrets.kv.v2
        self.set_life(mount, path, life)
        data = kv.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)["data"]["data"]
        kv.create_or_update_secret(path, data, mount_point=mount)

    def newest(self, mount: str, path: str) -> dict[str, Any]:
        """KV v2's metadata of a path's newest version, with its number as `version`."""
        about = self.metadata(mount, path)
        number = str(about["current_version"])
        return {**about["versions"][number], "version": int(number)}

    def destroy(self, mount: str, path: str, version: int) -> None:
        """Destroy a version for good."""
        self.admin.secrets.kv.v2.destroy_secret_versions(path, [version], mount_point=mount)

    def close(self) -> None:
        self.admin.adapter.close()
