"""What the error of one identity says about the others."""

from enum import Enum, auto

from vault_plugin.errors import (
    KlearstackVaultError,
    MountMissingError,
    SourceBusyError,
    SourceError,
    StoreError,
)


class Scope(Enum):
    """Whom an error concerns."""

    IDENTITY = auto()  # no other identity
    ENDPOINT = auto()  # all: the endpoint is down
    RATE_LIMIT = auto()  # all: the endpoint refuses more requests for now
    VAULT = auto()  # all: no Vault can store the token of any identity


def scope_of(exc: KlearstackVaultError) -> Scope:
    """Return whom an error concerns. A policy's 403 concerns one path; rate_limiter.py handles Vault's quotas."""
    match exc:
        case SourceBusyError():
            return Scope.RATE_LIMIT
        case SourceError(exit_code=SourceError.exit_code, retryable=True):
            return Scope.ENDPOINT
        case StoreError(for_all=None):
            down = isinstance(exc, MountMissingError) or exc.exit_code == StoreError.exit_code
            return Scope.VAULT if down else Scope.IDENTITY
        case StoreError(for_all=True):
            return Scope.VAULT
        case _:
            return Scope.IDENTITY
