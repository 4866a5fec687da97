"""hvac's exceptions as our errors, which do not quote what Vault said."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError

from vault_plugin.errors import MountMissingError, StoreError, StoreRefusedError, StoreSettingsError
from vault_plugin.vault import schema
from vault_plugin.vault.hvac_adapter import BASE
from vault_plugin.vault.schema import BY_POLICY
from vault_plugin.wording import named

# The capability of a policy that a request needs, by its method.
_CAPABILITIES = {"GET": "read", "LIST": "list", "DELETE": "delete", "PATCH": "patch"}
_WRAP = "/v1/sys/wrapping/wrap"
_log = logging.getLogger(__name__)


class CasMismatchError(Exception):
    """The newest version is not the expected one."""


class DeniedError(StoreRefusedError):
    """A policy does not grant the request to our token."""


class UnknownTokenError(StoreRefusedError):
    """Vault does not know our token, or does not know it any more."""

    for_all = True


@contextmanager
def translated(what: str, mount: str, prefix: str) -> Iterator[None]:
    """Raise hvac's exceptions as ours. They contain what Vault said, so none of them may be a cause."""
    try:
        yield
    except VaultError as exc:
        raise _error_of(exc, what, mount, prefix) from None
    except schema.MalformedError:
        raise StoreSettingsError(
            f"The response to the {what} is not in Vault's form.",
            hint=f"Check that {named('vault_addr')} is Vault's own address.",
        ) from None


def _error_of(exc: VaultError, what: str, mount: str, prefix: str) -> Exception:
    said = " ".join(str(error) for error in exc.errors or ())
    if "maximum allowed header size" in said:  # Vault 2.0: status 400, later 431
        return StoreRefusedError(
            f"Vault rejected the {what}: the Vault token is longer than the server accepts in a header.",
            hint="Use a service token, or increase `max_token_header_size` of Vault's listener.",
        )
    if isinstance(exc, InvalidRequest):
        if "check-and-set" in said:
            return CasMismatchError()
        return StoreRefusedError(f"Vault rejected the {what} (status 400).")
    if isinstance(exc, Forbidden):
        return _denied(what, mount, prefix, exc)
    if isinstance(exc, InvalidPath):
        return _not_found(exc, what, mount)
    # The transport has tried again where that can help.
    return StoreRefusedError(
        f"Vault rejected the {what} ({type(exc).__name__}).", hint="See Vault's server log."
    )


def _not_found(exc: InvalidPath, what: str, mount: str) -> StoreError:
    if is_in_no_namespace(exc):
        return StoreSettingsError(
            "Vault has no namespace of the given name.",
            hint=f"Check {named('vault_namespace')} and {named('auth_namespace')}: `vault namespace list` shows them.",
        )
    if is_unrouted(exc):
        return mount_missing(mount)
    return StoreRefusedError(
        f"Vault rejected the {what}: it has no such path (status 404).", hint=f"Check {named('mount')}."
    )


def _denied(what: str, mount: str, prefix: str, exc: Forbidden) -> StoreRefusedError:
    """The error for a status 403, by a policy or for an unknown token, for which Vault's error is shorter."""
    message = f"Vault denied the {what} (status 403)."
    text = " ".join(str(error) for error in exc.errors or ())
    if not is_policys(exc):
        return UnknownTokenError(
            message,
            hint="Vault does not know the Vault token: it has been revoked, has expired, or is wrong. Log in again.",
        )
    method, path = str(exc.method).upper(), str(exc.url).removeprefix(BASE)
    _log.info("Vault denied %s %s: the policy must grant %s there", method, path, capability(method, path))
    if path == _WRAP:
        return StoreRefusedError(
            message,
            hint="The policy of the Vault token must grant update on sys/wrapping/wrap, as `default` does.",
        )
    if (
        "preflight" in text
    ):  # A limited token gets the same response for a mount that it may not see and for none.
        return DeniedError(
            f"Vault denied permission to look at the mount {mount}, or no secrets engine is mounted at {mount}: "
            "the response is the same for both (status 403).",
            hint=f"Give the policy of the Vault token access to {mount}/{prefix} (docs/storage.md shows the policy; "
            f"{named('verbose')} names the request and the capability), or check {named('mount')}: "
            "`vault secrets list` shows the mounts.",
        )
    return DeniedError(
        message,
        hint="The policy of the Vault token lacks a capability, or the mount does not exist: "
        f"{named('verbose')} names the request and the capability; the documentation shows the policy.",
    )


def is_policys(exc: Forbidden) -> bool:
    """Whether a policy denied a request, and not that Vault does not know the token."""
    return any(said in str(error) for error in exc.errors or () for said in BY_POLICY)


def capability(method: str, path: str) -> str:
    """The capability that a request needs. KV v2's data needs no `create`: the metadata is written before it."""
    if path.startswith("/v1/sys/internal/ui/mounts/"):
        return "any capability below the mount"
    return _CAPABILITIES.get(method, "update" if "/data/" in path or path == _WRAP else "create and update")


def is_unrouted(exc: VaultError) -> bool:
    """Whether a 404 says that nothing is mounted there; a path without a secret has an empty list of errors."""
    return any("no handler for route" in str(error) for error in exc.errors or ())


def is_in_no_namespace(exc: VaultError) -> bool:
    """Whether a 404 says that the namespace does not exist."""
    return any("namespace not found" in str(error) for error in exc.errors or ())


def mount_missing(mount: str) -> MountMissingError:
    """The error for a mount that is not there, or is no KV secrets engine."""
    return MountMissingError(
        f"No KV secrets engine is mounted at {mount}, which {named('mount')} names.",
        hint="`vault secrets list` shows the mounts.",
    )


def wrong_version(mount: str, version: int) -> StoreSettingsError:
    """The error for a mount that is not the version of KV that it was taken for."""
    return StoreSettingsError(
        f"The KV secrets engine at {mount} is not version {version}, as it was before or as {named('kv_version')} says.",
        hint=f"Check {named('mount')} and {named('kv_version')}; `vault secrets list -detailed` shows the version.",
    )
