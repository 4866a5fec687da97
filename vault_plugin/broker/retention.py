"""Tokens that Vault would keep beyond their `exp`: their deletion time is corrected, or a warning says why it is not."""

import logging

from vault_plugin.broker.ports import TokenStore
from vault_plugin.errors import KlearstackVaultError, StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.stored import PathState

_log = logging.getLogger(__name__)


def corrected(store: TokenStore, identity: Identity, state: PathState, deadline: Deadline) -> PathState:
    """Correct the deletion time if Vault would keep the token too long. Where that fails, warn: the state stays as it is."""
    if state.stored is None or not state.stored.overdue:
        return state
    try:
        return store.repair(identity, state, deadline.half())
    except StoreError as exc:
        warn_of_failed_correction(state.stored.overdue, exc)
        return state


def warn_of_overdue(seconds: float) -> None:
    """Warn of a token that is only read, and kept so many seconds too long."""
    _log.warning("%s The next call that may write to Vault corrects this.", _overdue(seconds))


def warn_of_failed_correction(seconds: float, why: KlearstackVaultError) -> None:
    """Warn of a token that is kept so many seconds too long, and why that cannot be corrected."""
    _log.warning("%s This cannot be corrected now: %s", _overdue(seconds), why.line)


def _overdue(seconds: float) -> str:
    return f"Vault keeps the token {seconds:.1f} s longer than its JWT is valid."
