"""The write test: stores a small secret as a token is stored, and reads it back."""

from typing import Any

from vault_plugin.doctor.access import Access
from vault_plugin.doctor.verdicts import Verdict, failed, ok, warning
from vault_plugin.errors import ForeignSecretError, KlearstackVaultError
from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.vault.hvac_errors import CasMismatchError
from vault_plugin.wording import named

_CHECK = "write test"
# Of its path below the prefix; the paths of identities have three more parts.
_NAME = "klearstack-vault-doctor"
_LIFE = 10  # seconds after which KV v2 deletes what was written
_DATA = {"written-by": "klearstack-vault doctor --write-test"}


def verdict_on_writing(access: Access, version: int) -> Verdict:
    """Whether a secret can be written and read. It is always the same path, and holds no token.

    Nothing else that is stored there is overwritten.
    """
    path = f"{access.settings.path_prefix}/{_NAME}"
    place = f"{access.settings.mount}/{path}"
    try:
        end = _write_v2(access, path) if version == 2 else _write_v1(access, path)
        access.client.read(version, access.settings.mount, path, access.time())
    except CasMismatchError:
        return warning(_CHECK, f"another process wrote to {place} at the same time.", "Try again.")
    except KlearstackVaultError as exc:
        return failed(_CHECK, exc)
    if end:
        return ok(_CHECK, f"{place} was written and read; Vault deletes it at {end}.")
    return warning(_CHECK, f"{place} was written and read; Vault does not delete it.", "Delete it.")


def _write_v2(access: Access, path: str) -> str:
    """When KV v2 deletes what was written; empty if never. Raises StoreError."""
    client, mount = access.client, access.settings.mount
    found = client.read(2, mount, path, access.time()).secret
    if found and not _is_own(found):
        raise _taken(f"{mount}/{path}")
    client.set_metadata(mount, path, _LIFE, {}, access.time())
    version = found["metadata"]["version"] if found else 0
    metadata, _ = client.write(mount, path, _DATA, version, access.time())
    return str(metadata["deletion_time"])


def _write_v1(access: Access, path: str) -> str:
    client, mount = access.client, access.settings.mount
    if client.read(1, mount, path, access.time()).secret not in (None, _DATA):
        raise _taken(f"{mount}/{path}")
    client.write_v1(mount, path, _DATA, access.time())
    return ""


def _is_own(found: dict[str, Any]) -> bool:
    """Whether a write test wrote this to KV v2. Someone else's deleted data could still be undeleted."""
    about = found["metadata"]
    if found["data"] is not None:
        return found["data"] == _DATA and not about["custom_metadata"]
    # Vault sets both; it may delete earlier, by a limit of the mount. What is destroyed has no end.
    created, ends = (parse_rfc3339(about[name]) or 0.0 for name in ("created_time", "deletion_time"))
    return ends - created <= _LIFE + 1 and not about["custom_metadata"]


def _taken(place: str) -> ForeignSecretError:
    return ForeignSecretError(
        f"{place} holds a secret that no write test wrote; it was not overwritten.",
        hint=f"Choose another path with {named('path_prefix')}, or delete that secret.",
    )
