"""What `sync` reports of each identity."""

from typing import Literal, NamedTuple

from vault_plugin.bulk.targets import EnsureResult
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.manifest.entries import Entry
from vault_plugin.output.formats import describe_error
from vault_plugin.output.wrapped import described
from vault_plugin.timing.clock import format_rfc3339
from vault_plugin.tokens.stored import WrappingToken

Result = Literal["fresh", "minted", "copied", "would_mint", "failed"]


class SyncResult(NamedTuple):
    """The result for one identity. `expires_at` is Unix seconds; `outage`: the error is that of an outage, which is
    reported once for all identities.
    """

    entry: Entry
    result: Result
    expires_at: int | None = None
    error: KlearstackVaultError | None = None
    outage: bool = False
    wrapping: WrappingToken | None = None

    @classmethod
    def of(cls, entry: Entry, ensured: EnsureResult, wrapping: WrappingToken | None = None) -> "SyncResult":
        """Make the result for an identity that has a valid token."""
        return cls(entry, ensured.result, ensured.grant.access.token.expires_at, wrapping=wrapping)

    def describe(self) -> dict[str, object]:
        """Return a line of the report: plain strings, numbers and objects; no token but the wrapping token, if any."""
        identity = self.entry.identity
        line: dict[str, object] = {
            "line": self.entry.line,
            "company_name": identity.company_name,
            "user_id": identity.user_id,
            "result": self.result,
        }
        if self.expires_at is not None:
            line["expires_at"] = format_rfc3339(self.expires_at)
        if self.wrapping is not None:
            line |= described(self.wrapping)
        if self.error is not None:
            line["error"] = describe_error(self.error)
        return line
