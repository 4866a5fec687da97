"""Everything that can go wrong, by who can put it right.

Exit codes are sysexits.h's where they fit. 2 is no error here, though it means usage to
click and "remote" to vault and bao: `sync --detailed-exitcode` says by it, as Terraform does, that something changed. 5 is
said by `sync`, when only some failed.

    KlearstackVaultError      70   a bug of ours
    ├── UsageError            64   the command line makes no sense
    ├── QueryError            76   what another program sent on standard input is not what was agreed
    ├── SettingsError         78   something is missing or wrong in the configuration; nothing was contacted
    ├── TokenError            65   the endpoint's answer holds no token that lives
    │   └── UserMismatchError  65  ... holds a token that names another user
    ├── OutputError           73   a file cannot be created
    │   └── WriteError        74   ... or written
    ├── BusyError             75   the deadline passed while another process held the lock
    ├── SourceError           69   the token endpoint cannot be reached or does not answer
    │   ├── SourceBusyError        75   ... asks us to slow down (429)
    │   ├── SourceSettingsError    78   ... is not what the settings say: its certificate, its scheme
    │   ├── SourceProtocolError 76 ... answers something that is not its contract
    │   ├── SourceRefusedError     77   ... says no
    │   └── ParameterMissingError  78   ... misses a parameter (its 500)
    └── StoreError            69   Vault cannot be reached, is sealed, or fails
        ├── StoreBusyError         75   ... asks us to slow down (429)
        ├── StoreSettingsError     78   ... is not what the settings say: its certificate, its scheme, or not Vault
        ├── StoreRefusedError      77   ... says no
        ├── MountMissingError      78   ... has no KV secrets engine at --mount
        └── ForeignSecretError 78  ... holds somebody else's secret where ours should go
            └── OtherEndpointError 78  ... or a token that another endpoint issued

No message may contain a token, a Vault token or a response body: whoever adds one, add it to the canary test.
"""

from os import EX_TEMPFAIL, EX_UNAVAILABLE
from typing import ClassVar, NamedTuple

from vault_plugin.wording import worded


class KlearstackVaultError(Exception):
    """What failed and where, in one line; `hint` says what to do next.

    Settings are marked in both (see wording.py): `str` and `hint` are in the words of the face that shows them. `code` is
    stable and machine-readable; `meaning` is what the documented table of exit codes says of the class.
    """

    exit_code: ClassVar[int] = 70
    code: ClassVar[str] = "internal"
    meaning: ClassVar[str] = "internal error: please report it"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self._hint = hint

    def __str__(self) -> str:
        return worded(str(self.args[0]))

    @property
    def hint(self) -> str:
        """What to do next; empty if there is nothing to say."""
        return worded(self._hint)

    @property
    def line(self) -> str:
        """Both in one line."""
        return f"{self} {self.hint}".rstrip()

    @property
    def retryable(self) -> bool:
        """Whether the same call may work later, with nothing changed: the exit code says it, too."""
        return self.exit_code in {EX_UNAVAILABLE, EX_TEMPFAIL}


def internal_error(exc: Exception) -> KlearstackVaultError:
    """Make the error for an unforeseen exception, of its type and place alone: its text might quote a secret."""
    where = exc.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
    return KlearstackVaultError(f"Internal error: {type(exc).__name__} at {place}.", hint="Please report it.")


class UsageError(KlearstackVaultError):
    exit_code = 64
    code = "usage"
    meaning = "usage error"


class QueryError(KlearstackVaultError):
    exit_code = 76
    code = "query_invalid"
    meaning = "the query of Terraform, Kubernetes, Bazel or git is invalid, or standard input is closed"


class SettingsError(KlearstackVaultError):
    exit_code = 78
    code = "settings"
    meaning = "a setting is missing or invalid, or the manifest is; no request was sent"
    settings: frozenset[str] = (
        frozenset()
    )  # which of them are missing or wrong, as far as it is about settings
    missing: frozenset[str] = frozenset()  # those that nobody has given


class TokenError(KlearstackVaultError):
    exit_code = 65
    code = "token_invalid"
    meaning = (
        "the endpoint's token is not a JWT, has expired, has the wrong type or wrong dates, or "
        "expires before it can be stored"
    )


class UserMismatchError(TokenError):
    exit_code = 65
    code = "user_mismatch"
    meaning = "the endpoint's token names another user than the one asked for"


class OutputError(KlearstackVaultError):
    exit_code = 73
    code = "output_not_created"
    meaning = "an output file, a lock file or a listening address cannot be created"


class WriteError(OutputError):
    exit_code = 74
    code = "output_not_written"
    meaning = "standard output or an output file cannot be written"


class BusyError(KlearstackVaultError):
    exit_code = 75
    code = "busy"
    meaning = "another process held the lock until the deadline, or the lock folder did not respond"


class Failure(NamedTuple):
    """What was observed of the endpoint, as facts: a cause, which failures.py puts into words, and numbers.

    `number` is the status; for a certificate OpenSSL's reason; for a deadline the milliseconds that it allowed.
    `retry_after` (seconds) is the endpoint's.
    """

    cause: str
    number: int = 0
    retry_after: float = 0.0


class SourceError(KlearstackVaultError):
    exit_code = 69
    code = "endpoint_unavailable"
    meaning = "the endpoint is not reachable, did not respond in time, or answered 5xx after retries"
    failure: Failure | None = None  # what it is made of


class SourceBusyError(SourceError):
    exit_code = 75
    code = "endpoint_busy"
    meaning = "the endpoint's rate limit (429)"
    retry_after: float = 0.0  # seconds, as the endpoint's `Retry-After` says


class SourceSettingsError(SourceError):
    exit_code = 78
    code = "endpoint_settings"
    meaning = "the endpoint's TLS certificate does not verify, or the scheme is wrong (`http://`, `https://`)"


class SourceProtocolError(SourceError):
    exit_code = 76
    code = "endpoint_protocol"
    meaning = "the endpoint's response is not JSON with two tokens"


class SourceRefusedError(SourceError):
    exit_code = 77
    code = "endpoint_refused"
    meaning = "the endpoint rejected the request (4xx or a redirect)"


class ParameterMissingError(SourceError):
    exit_code = 78
    code = "endpoint_parameter_missing"
    meaning = "the endpoint reports a missing parameter"


class StoreError(KlearstackVaultError):
    exit_code = 69
    code = "vault_unavailable"
    meaning = "Vault is not reachable, is sealed, did not respond in time, or answered 5xx after retries"
    unrepeatable: bool = False  # whether the request may have been carried out, and must not be sent again
    for_all: bool | None = None  # whether it would meet every identity; None: as the class says


class StoreBusyError(StoreError):
    exit_code = 75
    code = "vault_busy"
    meaning = "Vault's rate limit (429)"


class StoreSettingsError(StoreError):
    exit_code = 78
    code = "vault_settings"
    meaning = (
        "Vault's TLS certificate does not verify, the scheme is wrong (`http://`, `https://`), or the server "
        "is not Vault"
    )


class StoreRefusedError(StoreError):
    exit_code = 77
    code = "vault_refused"
    meaning = "Vault rejected the request (400, 403, 404) or the login"


class MountMissingError(StoreError):
    exit_code = 78
    code = "vault_mount_missing"
    meaning = "no KV secrets engine is mounted there"


class ForeignSecretError(StoreError):
    exit_code = 78
    code = "vault_path_taken"
    meaning = "the Vault path holds a secret that klearstack-vault does not manage; it was not overwritten"


class OtherEndpointError(ForeignSecretError):
    exit_code = 78
    code = "vault_other_endpoint"
    meaning = "the Vault path holds a valid token that another endpoint issued; it was not overwritten"
