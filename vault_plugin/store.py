"""Tokens in Vault's KV engine, each gone when its JWT expires.

KV v2 reckons `deletion_time = created_time + delete_version_after` when a version is written, in whole seconds; the
path's setting must be there before the data, and a mount's own setting may shorten it or switch it off. So each
write is looked at afterwards, and nothing is believed that the answer does not say. KV v1 has no such thing: there a
reader goes by `expires_at`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import floor, inf
from typing import Any

from vault_plugin.clock import ServerClock, parse_rfc3339
from vault_plugin.errors import StoreError, TokenError
from vault_plugin.identity import Identity
from vault_plugin.record import MANAGED_BY, Slot, Stored, VaultRef, foreign, is_ours, stored_at, to_data
from vault_plugin.retry import Deadline
from vault_plugin.tokens import Kind, Token
from vault_plugin.vault import CasMismatchError, VaultClient

EARLIEST = 3.0  # seconds that a token may be gone from Vault before its JWT expires
LATENCY = 0.25  # seconds between reckoning a life and Vault's `created_time`; 105 ms was the longest seen
MAX_LIFE = 2_562_047 * 3600  # seconds; the longest that Vault takes
ATTEMPTS = 6  # writes of one token; more were never needed with 8 writers on 3 paths
_log = logging.getLogger(__name__)


class VaultStore:
    """Tokens at `<mount>/<prefix>/<company>/<user>/access` and `.../refresh`. Safe among threads and processes."""

    def __init__(self, client: VaultClient, clock: ServerClock, mount: str, prefix: str) -> None:
        self._client = client
        self._clock = clock
        self._mount = mount
        self._prefix = prefix
        self._version: int | None = None

    @contextmanager
    def mint(self, identity: Identity, deadline: Deadline) -> Iterator[None]:
        """Mint and store a new pair of tokens in the block, which begins when Vault accepts enough requests for that.

        Raises StoreBusyError if its rate limit quota leaves too few of them before the deadline.
        """
        with self._client.transport.mint(deadline):
            while self._client.transport.refuses:
                # Only a request tells when that is over, and a read waits for its turn.
                self.read(identity, Kind.ACCESS, deadline.half())
            yield

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> Slot:
        """What is stored, with what a later `write` needs to know of it.

        Raises ForeignSecretError if the path is somebody else's, StoreError and its branches if Vault fails.
        """
        ref = VaultRef(self._mount, identity.path(self._prefix, kind))
        answer = self._client.read(self._kv_version(deadline), ref.mount, ref.path, deadline)
        _log.info("Vault: %s/%s: %s", ref.mount, ref.path, "nothing" if answer is None else "something")
        if answer is None:
            return Slot()
        if self._version == 1:
            return Slot(stored=stored_at(ref, answer, identity, kind))
        metadata, data = answer["metadata"], answer["data"]
        if not is_ours(metadata):
            raise foreign()
        ref = _version_of(ref, metadata)
        return _slot(metadata, stored_at(ref, data, identity, kind) if data else None)

    def write(
        self, identity: Identity, token: Token, release_version: str, slot: Slot, deadline: Deadline
    ) -> Stored:
        """Store a token where `slot` was read before it was minted; what is stored at the end.

        That is somebody else's token if theirs came first, or is newer. Raises ForeignSecretError; TokenError if the
        token's life is too short to be stored; StoreError and its branches if Vault fails or lets it live too long.
        """
        if slot.stored and slot.stored.token.newer_than(token):
            return slot.stored
        data = to_data(token, identity, release_version)
        ref = VaultRef(self._mount, identity.path(self._prefix, token.kind))
        if self._kv_version(deadline) == 1:
            return self._write_v1(identity, Stored(token, ref, release_version), data, slot, deadline)
        shortened = set()
        for _ in range(ATTEMPTS):
            # The life that is set counts from when the data is written: a wait must come before both, not between.
            self._client.transport.take_turns(2 if slot.life is None else 1, deadline)
            slot = self._prepared(token, ref, slot, deadline)
            landed = self._attempt(identity, token, ref, data, slot, deadline)
            if landed.stored is None or not self._stands(landed.stored.token, token):
                slot = landed
                continue
            if landed.stored.token.value != token.value or _on_time(landed.stored):
                return landed.stored
            if landed.life is None or landed.life < (slot.life or 0):
                if landed.life in shortened:
                    _warn_of_limit(landed.life)
                    return landed.stored
                # The mount may have done it, or another writer of the path's metadata: a second try tells.
                shortened.add(landed.life)
            slot = Slot(version=landed.version)
        raise StoreError(
            "Vault would have kept the token longer than its JWT lives, whatever was tried.",
            hint="Other writers change `delete_version_after` of this path, or Vault's clock was set; try again.",
            retryable=True,
        )

    def _attempt(
        self,
        identity: Identity,
        token: Token,
        ref: VaultRef,
        data: dict[str, str],
        slot: Slot,
        deadline: Deadline,
    ) -> Slot:
        """One check-and-set write, and what lies there after it: this token, or what was in its way.

        After a lost answer the transport repeats the request, and what is in the way may be this very token.
        """
        try:
            metadata, sent = self._client.write(ref.mount, ref.path, data, slot.version, deadline)
        except CasMismatchError:
            return self.read(identity, token.kind, deadline)
        self._clock.observe_instant(parse_rfc3339(metadata["created_time"]), sent)
        return _slot(metadata, Stored(token, _version_of(ref, metadata), data["release_version"]))

    def _prepared(self, token: Token, ref: VaultRef, slot: Slot, deadline: Deadline) -> Slot:
        """The slot, with a life set that ends just before the JWT does; no request if the one it has still fits."""
        left = token.expires_at - self._clock.now()
        life = min(MAX_LIFE, floor(left - LATENCY))
        if life < 1:  # KV v2 takes less than a second for "never"
            raise TokenError(
                "The token expires before Vault could keep it for a second.",
                hint="Compare the clocks of KlearStack and Vault, and the token's life.",
            )
        # Our clock may run up to 1 s ahead of Vault's, whose `Date` has whole seconds, and the reckoning with it.
        if slot.life is not None and left - (EARLIEST - 1) <= slot.life <= left - LATENCY:
            return slot
        self._client.set_metadata(ref.mount, ref.path, life, MANAGED_BY, deadline)
        return Slot(slot.version, life)

    def _write_v1(
        self, identity: Identity, stored: Stored, data: dict[str, str], slot: Slot, deadline: Deadline
    ) -> Stored:
        # KV v1 has no check-and-set: all that can be done is to look right before.
        theirs = self.read(identity, stored.token.kind, deadline).stored
        if theirs and theirs != slot.stored and self._stands(theirs.token, stored.token):
            return theirs
        ttl = stored.token.ttl(self._clock.now())
        self._client.write_v1(stored.ref.mount, stored.ref.path, data | {"ttl": f"{ttl}s"}, deadline)
        return stored

    def _stands(self, theirs: Token, ours: Token) -> bool:
        """Whether what came first stays: so that all who race get one token, unless it has grown old meanwhile."""
        left = theirs.expires_at - self._clock.now()
        return left > 0 and (not ours.newer_than(theirs) or left >= theirs.margin(inf))

    def _kv_version(self, deadline: Deadline) -> int:
        if self._version is None:
            self._version = self._client.kv_version(self._mount, deadline)
        return self._version


def _version_of(ref: VaultRef, metadata: dict[str, Any]) -> VaultRef:
    return ref._replace(version=metadata["version"], deletion_time=metadata["deletion_time"] or None)


def _slot(metadata: dict[str, Any], stored: Stored | None) -> Slot:
    """What KV v2's version metadata tells."""
    created, deletion = (parse_rfc3339(metadata[name]) for name in ("created_time", "deletion_time"))
    life = round(deletion - created) if deletion and created else None
    return Slot(version=metadata["version"], life=life, stored=stored)


def _on_time(stored: Stored) -> bool:
    deletion = parse_rfc3339(stored.ref.deletion_time)
    expires_at = stored.token.expires_at
    return deletion is not None and expires_at - EARLIEST <= deletion <= expires_at


def _warn_of_limit(given: int | None) -> None:
    if given is None:
        _log.warning(
            "the KV mount's own `delete_version_after` switches expiry off: Vault will keep the token beyond its "
            "JWT's life. Set it to 0s (vault write MOUNT/config delete_version_after=0s)"
        )
    else:
        _log.warning(
            "the KV mount's own `delete_version_after` ends the token's life in Vault after %d s", given
        )
