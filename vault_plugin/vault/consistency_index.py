"""X-Vault-Index: have the reads of one lock holder see what the previous holder has written.

In a cluster a read may reach a node to which the newest write has not been replicated yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from vault_plugin.vault.transport import Transport


class Memo(Protocol):
    """What one holder of a lock leaves for the next one."""

    @property
    def memo(self) -> str | None:
        """The memo of the previous holder."""

    def write_memo(self, memo: str) -> None:
        """Leave a memo for the next holder."""


@contextmanager
def handed_over(transport: Transport, handle: Memo) -> Iterator[None]:
    """Begin with the index that the previous holder left, and leave the newest one for the next holder."""
    transport.index = handle.memo or transport.index
    try:
        yield
    finally:
        if transport.index != handle.memo:  # None by now if Vault rejected it
            handle.write_memo(transport.index or "")
