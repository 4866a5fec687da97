"""All errors, by who can correct the cause.

Exit codes are those of sysexits.h where they fit. 2 is no error here, though it means a usage error to click and "remote"
to vault and bao: as in Terraform, `sync --detailed-exitcode` exits by it if something changed. `sync` and `delete` exit by 5
if some identities failed, `status --exit-code` by 3 or 4 for what monitoring should report.

    KlearstackVaultError      70   internal error
    ├── UsageError            64   usage error
    ├── QueryError            76   what another program sent on standard input does not follow its protocol
    ├── SettingsError         78   a setting is missing or invalid; no request was sent
    ├── TokenError            65   the endpoint's response holds no valid token
    │   └── UserMismatchError  65  ... holds a token that names another user
    ├── OutputError           73   a file cannot be created
    │   └── WriteError        74   ... or written
    ├── BusyError             75   the deadline passed while another process held the lock
    ├── SourceError           69   the token endpoint is not reachable or does not respond
    │   ├── SourceBusyError        75   ... limits the request rate (429)
    │   ├── SourceSettingsError    78   ... does not match the settings: its certificate, its scheme
    │   ├── SourceProtocolError    76   ... returns a response that is not as documented
    │   ├── SourceRefusedError     77   ... rejects the request
    │   └── ParameterMissingError  78   ... reports a missing parameter (its 500)
    └── StoreError            69   Vault is not reachable, is sealed, or fails
        ├── StoreBusyError         75   ... limits the request rate (429)
        ├── StoreSettingsError     78   ... does not match the settings: its certificate, its scheme, or not Vault
        ├── StoreRefusedError      77   ... rejects the request
        ├── MountMissingError      78   ... has no KV secrets engine at the mount
        └── ForeignSecretError     78   ... holds an unmanaged secret at the path
            └── OtherEndpointError  78  ... or a token that another endpoint issued

No message may contain a token, a Vault token or a response body: whoever adds one, adds it to the canary test.
"""

from os import EX_TEMPFAIL, EX_UNAVAILABLE
from typing import ClassVar, NamedTuple

from vault_plugin.wording import worded


class KlearstackVaultError(Exception):
    """What failed and where, in one line; `hint` says what to do next.

    Settings are marked in both (see wording.py): `str` and `hint` name them as the interface that shows them does. `code`
    is stable and machine-readable; `meaning` is the text in the documented table of exit codes.
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
        """What to do next; may be empty."""
        return worded(self._hint)

    @property
    def line(self) -> str:
        """The message and the hint in one line."""
        return f"{self} {self.hint}".rstrip()

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later, with nothing changed; the exit code says so, too."""
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
    settings: frozenset[str] = frozenset()  # the names of those that are missing or invalid
    missing: frozenset[str] = frozenset()  # the names of those that are missing


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
    """What was observed of the endpoint: a cause, of which failures.py makes an error, and numbers.

    `number` is the status; for a certificate OpenSSL's reason; for a deadline the milliseconds that it allowed.
    `retry_after` (seconds) is the endpoint's `Retry-After`.
    """

    cause: str
    number: int = 0
    retry_after: float = 0.0


class SourceError(KlearstackVaultError):
    exit_code = 69
    code = "endpoint_unavailable"
    meaning = "the endpoint is not reachable, did not respond in time, or responded with 5xx after retries"
    failure: Failure | None = None  # what it was made from


class SourceBusyError(SourceError):
    exit_code = 75
    code = "endpoint_busy"
    meaning = "the endpoint's rate limit (429)"
    retry_after: float = 0.0  # seconds, the endpoint's `Retry-After`


class SourceSettingsError(SourceError):
    exit_code = 78
    code = "endpoint_settings"
    meaning = (
        "the endpoint's TLS certificate does not verify, the scheme is wrong (`http://`, `https://`), "
        "or the proxy rejects the connection"
    )


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
    meaning = (
        "Vault is not reachable, is sealed, did not respond in time, or responded with 5xx after retries"
    )
    unrepeatable: bool = False  # whether the request may have been processed, and must not be sent again
    for_all: bool | None = None  # whether it affects every identity; None: as usual for the class

    def again(self) -> "StoreError":
        """An equal error, for whoever would get the same one; without the traceback of this one."""
        error = type(self)(str(self.args[0]), hint=self._hint)
        error.unrepeatable, error.for_all = self.unrepeatable, self.for_all
        return error


class StoreBusyError(StoreError):
    exit_code = 75
    code = "vault_busy"
    meaning = "Vault's rate limit (429)"


class StoreSettingsError(StoreError):
    exit_code = 78
    code = "vault_settings"
    meaning = (
        "Vault's TLS certificate does not verify, the scheme is wrong (`http://`, `https://`), the server "
        "is not Vault, or the proxy rejects the connection"
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
