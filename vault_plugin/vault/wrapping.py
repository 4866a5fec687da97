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
_refused: dict[Secret, StoreError] = {}  # why there is no secret id, by the wrapping token
_lost: set[Secret] = set()  # wrapping tokens that a request may have used whose response was lost

_REJECTED = "Vault rejected the wrapping token of the secret id"
_USED = (
    f"{_REJECTED}: it has expired, has been used, or is not one.",
    "Request another wrapped secret id. If nothing of yours has unwrapped this one, destroy it: somebody else has.",
)
_AFTER_LOSS = (
    f"{_REJECTED}: it has expired, or was used by an earlier request of this process, whose response was lost.",
    "Request another wrapped secret id.",
)


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
        if token in _refused:
            raise _refused[token].again()
        if token not in _unwrapped:
            _unwrapped[token] = _unwrap(vault, lost=token in _lost)
        return _unwrapped[token]
    except StoreRefusedError as exc:
        _refused[token] = exc.again()
        raise
    except StoreError as exc:
        if exc.unrepeatable:  # which holds for a request that was not sent as well: the next one may succeed
            _lost.add(token)
        raise
    finally:
        _unwrapping.release()


def _unwrap(vault: JSONAdapter, *, lost: bool) -> Secret:
    try:
        return Secret(schema.secret_id(vault.post("/v1/sys/wrapping/unwrap")))
    except VaultError:
        reason, hint = _AFTER_LOSS if lost else _USED
    except schema.MalformedError:
        reason, hint = (
            "The wrapping token contains no secret id.",
            "Wrap the response of `vault write -wrap-ttl=5m -force auth/approle/role/ROLE/secret-id`.",
        )
    raise StoreRefusedError(reason, hint=f"{hint} Check {named('wrapped_secret_id')}.")
