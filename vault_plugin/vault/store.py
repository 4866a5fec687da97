"""Tokens in Vault's KV engine, each gone when its JWT expires.

KV v2 reckons `deletion_time = created_time + delete_version_after` when a version is written, in whole seconds; the
path's setting must be there before the data, and a mount's own setting may shorten it or switch it off. So each
write is looked at afterwards, and nothing is believed that the answer does not say. KV v1 has no such thing: there a
reader goes by `expires_at`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

from vault_plugin.errors import ForeignSecretError, StoreError, TokenError
from vault_plugin.timing.clock import ServerClock, format_rfc3339, parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token
from vault_plugin.tokens.stored import REJECTED_EVERY, PathState, StoredToken, VaultRef
from vault_plugin.vault.client import CasMismatchError, VaultClient
from vault_plugin.vault.lifetime import Landing, ResponseTimes, fits, landing, plan
from vault_plugin.vault.record import (
    ISSUED_BY,
    REJECTED_AT,
    described,
    foreign,
    is_ours,
    marked_issuer,
    marks,
    marks_of,
    rejected_at,
    stored_at,
    to_data,
    without_token,
)
from vault_plugin.vault.transport import OutdatedError

ATTEMPTS = 6  # writes of one token; more were never needed with 8 writers on 3 paths
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """A token on its way to its path; it expires at `end` (Unix seconds by Vault's clock)."""

    identity: Identity
    token: Token
    ref: VaultRef
    data: dict[str, str]
    end: float
    times: ResponseTimes
    deadline: Deadline


class VaultStore:
    """Tokens at `<mount>/<prefix>/<company>/<user>/access` and `.../refresh`. Safe among threads and processes."""

    def __init__(
        self,
        client: VaultClient,
        clock: ServerClock,
        mount: str,
        prefix: str,
        *,
        latest: Callable[[], float] | None = None,
        accept_other_users: bool = False,
    ) -> None:
        """`latest` (Unix seconds) is by the clock that is furthest on, Vault's or the endpoint's."""
        self._client = client
        self._clock = clock
        self._mount = mount
        self._prefix = prefix
        self._latest = latest or clock.now
        self._accept_other_users = accept_other_users
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

    def try_writing(self, identity: Identity, kind: Kind, slot: PathState, deadline: Deadline) -> PathState:
        """Find out whether a token could be stored where `slot` was read, before one is minted; the slot as it is then.

        That writes the path's metadata, which deletes nothing and changes no life. KV v1 has none: there nothing is
        known before. Raises StoreError and its branches.
        """
        if self._kv_version(deadline) == 1:
            return slot
        ref = VaultRef(self._mount, identity.path(self._prefix, kind))
        self._client.set_metadata(ref.mount, ref.path, slot.life or 1, marks_of(slot.issued_by), deadline)
        return slot

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState:
        """What is stored, with what a later `write` needs to know of it.

        Raises ForeignSecretError if the path is somebody else's, StoreError and its branches if Vault fails.
        """
        ref = VaultRef(self._mount, identity.path(self._prefix, kind))
        version = self._kv_version(deadline)
        answer = self._client.read(version, ref.mount, ref.path, deadline)
        took = self._client.took
        slot = self._slot_of(version, ref, answer, identity, kind)
        _log.info("read %s/%s: %s", ref.mount, ref.path, described(slot.stored))
        return slot._replace(took=took)

    def _slot_of(
        self, version: int, ref: VaultRef, answer: dict[str, Any] | None, identity: Identity, kind: Kind
    ) -> PathState:
        if answer is None:
            return PathState()
        try:
            if version == 1:
                stored = self._stored_at(ref, answer, identity, kind)
                return PathState(stored=stored, rejected_at=rejected_at(answer))
            metadata, data = answer["metadata"], answer["data"]
            if not is_ours(metadata):
                raise foreign()
            stored = self._stored_at(ref.of_version(metadata), data, identity, kind) if data else None
            return _slot(metadata, data, stored)
        except ForeignSecretError:
            _log.info("read %s/%s: an unmanaged secret", ref.mount, ref.path)
            raise

    def write(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        slot: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken:
        """Store a token where `slot` was read before it was minted, `age` seconds ago; what is stored at the end.

        That is somebody else's token if theirs came first, or is newer. Raises ForeignSecretError; TokenError if the
        token's life is too short to be stored; StoreError and its branches if Vault fails or lets it live too long.
        """
        if slot.stored and self._outranks(slot.stored, token):
            return slot.stored
        task = self._task(identity, token, release_version, slot, deadline, age)
        if self._kv_version(deadline) == 1:
            return self._write_v1(task, StoredToken(token, task.ref, release_version), slot)
        landed = self._settled(task, slot).stored
        if landed is None:
            raise TokenError(
                "The token expires before Vault could keep it for a second.",
                hint="Compare the clocks of KlearStack and Vault, and the token's life.",
            )
        return landed

    def repair(self, identity: Identity, slot: PathState, deadline: Deadline) -> PathState:
        """Have Vault delete in time what it keeps beyond its JWT's `exp`, by a new version; what is there then.

        A token too old for that is overwritten by a version without one. Raises StoreError and its branches.
        """
        stored = slot.stored
        if stored is None or not stored.overdue:
            return slot
        age = stored.age(self._clock.now())
        task = self._task(identity, stored.token, stored.release_version, slot, deadline, age)
        _log.info("Vault: %s/%s: deleted too late by %.1f s", task.ref.mount, task.ref.path, stored.overdue)
        return self._settled(task, slot._replace(life=None))

    def reject(self, identity: Identity, slot: PathState, deadline: Deadline) -> None:
        """Remove the access token that was read into `slot`, by a version without one, which says when that was.

        Nothing is done within REJECTED_EVERY seconds after the last time, or if another token came first. Raises StoreError
        and its branches.
        """
        now = self._clock.now()
        if slot.stored is None or slot.newly_rejected(now):
            return
        token, ref = slot.stored.token, slot.stored.ref
        data = to_data(token, identity, slot.stored.release_version, rejected_at=format_rfc3339(ceil(now)))
        data = without_token(data, token.kind)
        if self._kv_version(deadline) == 2:
            with suppress(CasMismatchError):
                self._client.write(ref.mount, ref.path, data, slot.version, deadline)
        elif self.read(identity, token.kind, deadline).stored == slot.stored:
            self._client.write_v1(ref.mount, ref.path, data | {"ttl": f"{REJECTED_EVERY:.0f}s"}, deadline)

    def _task(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        slot: PathState,
        deadline: Deadline,
        age: float,
    ) -> _Task:
        now = self._clock.now()
        return _Task(
            identity,
            token,
            VaultRef(self._mount, identity.path(self._prefix, token.kind)),
            to_data(token, identity, release_version),
            min(token.expires_at, now + token.life - age),
            ResponseTimes(slot.took),
            deadline,
        )

    def _data(self, task: _Task, slot: PathState) -> dict[str, str]:
        """What is written on top of `slot`: with the mark of a new rejection, which another writer may have left there."""
        marked = slot.newly_rejected(self._clock.now())
        return task.data | ({REJECTED_AT: slot.rejected_at} if marked else {})

    def _settled(self, task: _Task, slot: PathState) -> PathState:
        """What KV v2 holds at the end: this token, deleted in time; another that came first; or none, if it is too old.

        `slot.stored` is looked at only where it is this token, with an end to be corrected.
        """
        shortened: set[int | None] = set()
        for _ in range(ATTEMPTS):
            # The life that is set counts from when the data is written: a wait must come before both, not between.
            self._client.transport.take_turns(2 if slot.life is None else 1, task.deadline)
            slot = self._prepared(task, slot)
            if slot.life is None:
                return self._given_up(task, slot)
            life = slot.life
            landed = self._attempt(task, slot, life)
            if landed is None:
                continue  # it would have come too late
            if landed.stored is None or not self._stands(landed.stored, task.token):
                slot = landed
                continue
            if landed.stored.token.value != task.token.value:
                return self.repair(task.identity, landed, task.deadline)
            if _landing(task, landed.stored, landed.life) is Landing.ON_TIME:
                return landed
            if landed.life is None or landed.life < life:
                if landed.life in shortened:
                    _warn_of_limit(landed.life)
                    return landed
                # The mount may have done it, or another writer of the path's metadata: a second try tells.
                shortened.add(landed.life)
            slot = landed._replace(life=None)
        raise StoreError(
            "Vault would have kept the token longer than its JWT lives, whatever was tried.",
            hint="Other writers change `delete_version_after` of this path, Vault's clock was set, or its response "
            "times vary too much; try again.",
        )

    def _left(self, task: _Task) -> float:
        """Seconds until the token expires."""
        return task.end - self._clock.now()

    def _prepared(self, task: _Task, slot: PathState) -> PathState:
        """The slot with a life set that fits, by no request if the one it has still does; without one if none would."""
        issuer = marks(task.token).get(ISSUED_BY, "")
        is_marked = slot.issued_by == issuer
        if slot.life is not None and is_marked and fits(slot.life, self._left(task), task.times):
            return slot
        life = plan(self._left(task), task.times)
        if life < 1:  # KV v2 takes less than a second for "never"
            return slot._replace(life=None)
        self._set_life(task, life)
        return slot._replace(life=life, issued_by=issuer)

    def _set_life(self, task: _Task, life: int) -> None:
        with task.times.measured():
            self._client.set_metadata(task.ref.mount, task.ref.path, life, marks(task.token), task.deadline)

    def _attempt(self, task: _Task, slot: PathState, life: int) -> PathState | None:
        """One check-and-set write, and what lies there after it: this token, or what was in its way.

        None if the life does not fit, as Vault took much longer than predicted, or not as long; or if it no longer fitted
        when the request was to be repeated, which may have been carried out. After a lost answer the transport
        repeats the request, and what is in the way may be this very token.
        """
        if not fits(life, self._left(task), task.times):
            return None

        def in_time() -> bool:
            return self._left(task) - life >= task.times.quickest

        ref, data = task.ref, self._data(task, slot)
        try:
            with task.times.measured():
                metadata, sent = self._client.write(
                    ref.mount, ref.path, data, slot.version, task.deadline, in_time
                )
        except OutdatedError:
            task.times.delayed = True
            return None
        except CasMismatchError:
            found = self.read(task.identity, task.token.kind, task.deadline)
            return found._replace(rejected_at=found.rejected_at or slot.rejected_at)
        self._clock.observe_instant(parse_rfc3339(metadata["created_time"]), sent)
        stored = StoredToken(task.token, ref.of_version(metadata), task.data["release_version"])
        _log.info("wrote %s/%s: %s", ref.mount, ref.path, described(stored))
        return _slot(metadata, data, stored)

    def _given_up(self, task: _Task, slot: PathState) -> PathState:
        """What lies there when the token is too old to be written; if Vault would keep it too long, it is overwritten."""
        if task.times.delayed:  # a write that was given up may have been carried out
            slot = self.read(task.identity, task.token.kind, task.deadline)
        if slot.stored is None or slot.stored.token.value != task.token.value:
            return PathState(slot.version)
        if _landing(task, slot.stored, slot.life) is not Landing.LATE:
            return slot
        self._set_life(task, 1)
        ref, data = task.ref, without_token(self._data(task, slot), task.token.kind)
        try:
            metadata, _ = self._client.write(ref.mount, ref.path, data, slot.version, task.deadline)
        except CasMismatchError:
            return self.read(task.identity, task.token.kind, task.deadline)
        return PathState(metadata["version"])

    def _write_v1(self, task: _Task, stored: StoredToken, slot: PathState) -> StoredToken:
        # KV v1 has no check-and-set: all that can be done is to look right before.
        newest = self.read(task.identity, task.token.kind, task.deadline)
        theirs = newest.stored
        if theirs and theirs != slot.stored and self._stands(theirs, task.token):
            return theirs
        ttl = floor(self._left(task))
        if ttl < 1:
            raise TokenError("The token expired before it could be stored.", hint="Its life is too short.")
        data = self._data(task, newest) | {"ttl": f"{ttl}s"}
        self._client.write_v1(task.ref.mount, task.ref.path, data, task.deadline)
        _log.info("wrote %s/%s: %s", task.ref.mount, task.ref.path, described(stored))
        return stored

    def _stands(self, theirs: StoredToken, ours: Token) -> bool:
        """Whether what came first stays: so that all who race get one token, unless it has grown old meanwhile."""
        now = self._clock.now()
        left = theirs.left(now, now)
        if left <= 0 or theirs.token.value == ours.value or not theirs.token.is_of(ours.issued_by):
            return left > 0  # whoever gets another endpoint's token refuses it
        return not theirs.token.is_ahead(self._latest()) and (
            not ours.newer_than(theirs.token) or left >= theirs.token.margin(inf)
        )

    def _outranks(self, theirs: StoredToken, ours: Token) -> bool:
        """Whether what is stored stays, being newer: not if it has expired, is another endpoint's, or misdated."""
        now = self._clock.now()
        valid = theirs.left(now, now) > 0 and theirs.token.is_of(ours.issued_by)
        return valid and theirs.token.newer_than(ours) and not theirs.token.is_ahead(self._latest())

    def _stored_at(
        self, ref: VaultRef, data: dict[str, Any], identity: Identity, kind: Kind
    ) -> StoredToken | None:
        return stored_at(ref, data, identity, kind, accept_other_users=self._accept_other_users)

    def checks_and_sets(self, deadline: Deadline) -> bool:
        """Whether of several writers at the same time one wins and the others learn of it (KV v2)."""
        return self._kv_version(deadline) == 2

    def _kv_version(self, deadline: Deadline) -> int:
        if self._version is None:
            self._version = self._client.kv_version(self._mount, deadline)
        return self._version


def _landing(task: _Task, stored: StoredToken, life: int | None) -> Landing:
    return landing(parse_rfc3339(stored.ref.deletion_time), life, task.end, task.times)


def _slot(metadata: dict[str, Any], data: Mapping[str, Any] | None, stored: StoredToken | None) -> PathState:
    """What KV v2's version metadata and data tell."""
    created, deletion = (parse_rfc3339(metadata[name]) for name in ("created_time", "deletion_time"))
    life = round(deletion - created) if deletion and created else None
    issuer = marked_issuer(metadata)
    return PathState(metadata["version"], life, stored, issuer, rejected_at=rejected_at(data))


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
