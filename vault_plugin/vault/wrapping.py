"""Wrapping tokens, which contain a response of Vault and are valid for a single request."""

import threading

from hvac.adapters import JSONAdapter
from hvac.exceptions import VaultError

from vault_plugin.errors import StoreError, StoreRefusedError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.secret import Secret
from vault_plugin.vault import schema
from vault_plugin.wording import named

_unwrapping = threading.Lock()
# What was unwrapped, by its wrapping token. It is kept until this process ends: a login that is made again, for another
# target or after a reload of the manifest as well, needs it, and cannot unwrap it again.
_unwrapped: dict[Secret, Secret] = {}


def is_wrapping_token(vault: JSONAdapter, token: str) -> bool:
    """Whether Vault says that this is a wrapping token that has not been used; asking does not use it. Raises StoreError."""
    try:
        vault.post("/v1/sys/wrapping/lookup", json={"token": token})
    except VaultError:
        return False
    return True


def unwrapped_secret_id(vault: JSONAdapter, token: Secret, deadline: Deadline) -> Secret:
    """The AppRole secret id that a wrapping token contains; `vault` must send that token.

    Raises StoreRefusedError if there is none, StoreError if Vault fails or the deadline passes.
    """
    if not _unwrapping.acquire(timeout=deadline.left()):
        raise StoreError(
            "The secret id was not unwrapped before the deadline.", hint=f"Increase {named('deadline')}."
        )
    try:
        if token not in _unwrapped:
            _unwrapped[token] = _unwrap(vault)
        return _unwrapped[token]
    finally:
        _unwrapping.release()


def _unwrap(vault: JSONAdapter) -> Secret:
    try:
        return Secret(schema.secret_id(vault.post("/v1/sys/wrapping/unwrap")))
    except VaultError:
        reason, hint = (
            "Vault rejected the wrapping token of the secret id: it has expired, has been used, or is not one.",
            "Request another wrapped secret id. If nothing of yours has unwrapped this one, destroy it: somebody else has.",
        )
    except schema.MalformedError:
        reason, hint = (
            "The wrapping token contains no secret id.",
            "Wrap the response of `vault write -wrap-ttl=5m -force auth/approle/role/ROLE/secret-id`.",
        )
    raise StoreRefusedError(reason, hint=f"{hint} Check {named('wrapped_secret_id')}.")
