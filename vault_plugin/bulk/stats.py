"""What `watch` counts, and when the tokens that it renews expire."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vault_plugin.broker import Grant
from vault_plugin.manifest.entries import Entry
from vault_plugin.tokens.identity import Identity


class Expiry(NamedTuple):
    """When an identity's access token expires: in Unix seconds by the servers' clocks, and in monotonic seconds."""

    entry: Entry
    at: float
    monotonic: float


@dataclass
class Stats:
    """Counters since the start of the process. Safe among threads."""

    mints: int = 0
    waits: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    expiries: dict[Identity, Expiry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def valid(self) -> int:
        """How many of the tokens have not expired."""
        with self._lock:
            return sum(expiry.monotonic > time.monotonic() for expiry in self.expiries.values())

    def restrict(self, entries: Iterable[Entry]) -> None:
        """Forget the tokens of all identities but these, as a new manifest may have others."""
        entry_of = {entry.identity: entry for entry in entries}
        with self._lock:
            self.expiries = {
                identity: expiry._replace(entry=entry_of[identity])
                for identity, expiry in self.expiries.items()
                if identity in entry_of
            }

    def count_token(self, entry: Entry, grant: Grant, *, minted: bool) -> None:
        """Count a token that was minted or found."""
        left = grant.access.left(grant.now)
        with self._lock:
            self.expiries[entry.identity] = Expiry(entry, grant.now + left, time.monotonic() + left)
            self.mints += minted
            self.waits += grant.waited

    def count_failure(self, code: str) -> None:
        """Count a failed attempt, by the error's code."""
        with self._lock:
            self.failures[code] += 1
