"""Tokens in a KV v2 mount, where Vault deletes each version when its JWT expires.

KV v2 computes `deletion_time = created_time + delete_version_after` when a version is written, in whole seconds. The path's
`delete_version_after` must be set before the data is written, and the mount's own one may shorten it or switch it off. So
each write is checked afterwards, and only what the response says counts.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from vault_plugin.errors import StoreError, TokenError
from vault_plugin.timing.clock import parse_rfc3339
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef
from vault_plugin.vault.hvac_errors import CasMismatchError
from vault_plugin.vault.kv import Engine, Task
from vault_plugin.vault.lifetime import Landing, fits, landing, plan
from vault_plugin.vault.record import (
    ISSUED_BY,
    custom_metadata,
    custom_metadata_of,
    described,
    is_managed,
    issuer_in,
    manifest_in,
    rejected_at,
    unmanaged,
    without_token,
)
from vault_plugin.vault.transport import OutdatedError

ATTEMPTS = 6  # Writes of one token; 8 writers on 3 paths never needed more.
_log = logging.getLogger(__name__)


class Outcome(Enum):
    """What one try to write a token led to."""

    ON_TIME = auto()  # It is stored, and is deleted in time.
    LIMITED = auto()  # It is stored, and the mount limits its lifetime or switches expiry off.
    MISTIMED = auto()  # It is stored, and has the wrong lifetime.
    OTHER_STAYS = auto()  # Another token came first, and stays.
    OTHER_YIELDS = auto()  # Another version came first, and is overwritten.
    NOT_SENT = auto()  # The lifetime no longer fitted when the request was due.


class Kv2(Engine):
    """See Engine. Check-and-set lets one of several writers win, and the others learn of it."""

    version = 2

    def rewrite_metadata(self, identity: Identity, kind: Kind, state: PathState, deadline: Deadline) -> None:
        """Write the metadata that the path already has."""
        ref = self.ref(identity, kind)
        custom = custom_metadata_of(state.issued_by, state.manifest)
        self.client.set_metadata(ref.mount, ref.path, state.life or 1, custom, deadline)

    def write(self, task: Task, state: PathState) -> StoredToken:
        """See Engine. Raises TokenError where the token expires first."""
        stored = self._settled(task, state).stored
        if stored is None:
            raise TokenError(
                "The token expires before Vault could keep it for a second.",
                hint="Compare the clocks of KlearStack and Vault, and the token's lifetime.",
            )
        return stored

    def repair(self, identity: Identity, state: PathState, deadline: Deadline) -> PathState:
        """Write a token that Vault would delete too late as a new version. See VaultStore."""
        stored = state.stored
        if stored is None or not stored.overdue:
            return state
        age = stored.age(self.clock.now())
        task = self.task(identity, stored.token, stored.release_version, state, deadline, age)
        _log.info("Vault: %s/%s: deleted too late by %.1f s", task.ref.mount, task.ref.path, stored.overdue)
        return self._settled(task, state._replace(life=None))

    def overwrite(
        self, identity: Identity, kind: Kind, state: PathState, data: dict[str, str], deadline: Deadline
    ) -> None:
        """See Engine."""
        ref = self.ref(identity, kind)
        with suppress(CasMismatchError):
            self.client.write(ref.mount, ref.path, data, state.version, deadline)

    def _state_of(self, ref: VaultRef, secret: dict[str, Any], identity: Identity, kind: Kind) -> PathState:
        metadata, data = secret["metadata"], secret["data"]
        if not is_managed(metadata):
            raise unmanaged()
        stored = self._stored_at(ref.of_version(metadata), data, identity, kind) if data else None
        return _state(metadata, data, stored)

    def _settled(self, task: Task, state: PathState) -> PathState:
        """Write until the path holds this token, deleted in time, or another one that stays; none, if it is too old.

        `state.stored` counts only where it is this token, with a lifetime to be corrected.
        """
        for _ in range(ATTEMPTS):
            # The lifetime counts from when the data is written: a wait must come before both requests, not between them.
            self.client.transport.quota.reserve(2 if state.life is None else 1, task.deadline)
            state = self._prepared(task, state)
            if state.life is None:
                return self._given_up(task, state)
            outcome, state = self._attempt(task, state, state.life)
            if outcome is Outcome.OTHER_STAYS:
                return self.repair(task.identity, state, task.deadline)
            if outcome is Outcome.LIMITED:
                _warn_of_limit(state.life)
            if outcome in {Outcome.ON_TIME, Outcome.LIMITED}:
                return state
            if outcome is Outcome.MISTIMED:
                state = state._replace(life=None)
        raise StoreError(
            "Vault would have kept the token longer than its JWT is valid, in each of several tries.",
            hint="Other writers change `delete_version_after` of this path, Vault's clock was set, or its response "
            "times vary too much; try again.",
        )

    def _prepared(self, task: Task, state: PathState) -> PathState:
        """The state with a lifetime that fits, set now unless the path has one already; None if no lifetime fits."""
        issuer, manifest = custom_metadata(task.token).get(ISSUED_BY, ""), self.manifest_of(state)
        is_marked = (state.issued_by, state.manifest) == (issuer, manifest)
        if state.life is not None and is_marked and fits(state.life, self.left(task), task.times):
            return state
        life = plan(self.left(task), task.times)
        if life < 1:  # KV v2 takes less than a second for "never".
            return state._replace(life=None)
        self._set_life(task, state, life)
        return state._replace(life=life, issued_by=issuer, manifest=manifest)

    def _set_life(self, task: Task, state: PathState, life: int) -> None:
        with task.times.measured():
            custom = custom_metadata(task.token, self.manifest_of(state))
            self.client.set_metadata(task.ref.mount, task.ref.path, life, custom, task.deadline)

    def _attempt(self, task: Task, state: PathState, life: int) -> tuple[Outcome, PathState]:
        """Send one check-and-set write; what it led to, and the state of the path after it.

        After a lost response the transport sends the request again, and the version that came first may be this very token.
        A write that was not sent again may have been carried out.
        """
        if not fits(life, self.left(task), task.times):
            return Outcome.NOT_SENT, state

        def in_time() -> bool:
            # The times contain the wait for the rate limit, which is over when this is asked.
            return self.left(task) - life >= max(0.0, task.times.quickest - self.client.transport.quota.gap)

        ref, data = task.ref, self.data(task, state)
        try:
            with task.times.measured():
                metadata, sent = self.client.write(
                    ref.mount, ref.path, data, state.version, task.deadline, in_time
                )
        except OutdatedError:
            task.times.delayed = True
            return Outcome.NOT_SENT, state
        except CasMismatchError:
            found = self.read(task.identity, task.token.kind, task.deadline)
            after = found._replace(rejected_at=found.rejected_at or state.rejected_at)
        else:
            self.clock.observe_instant(parse_rfc3339(metadata["created_time"]), sent)
            stored = StoredToken(task.token, ref.of_version(metadata), task.data["release_version"])
            _log.info("wrote %s/%s: %s", ref.mount, ref.path, described(stored))
            after = _state(metadata, data, stored)
        return self._outcome(task, life, after), after

    def _outcome(self, task: Task, life: int, after: PathState) -> Outcome:
        """What a write led to, by the state of the path after it, where `life` had been set."""
        if after.stored is None or not self.stays(after.stored, task.token):
            return Outcome.OTHER_YIELDS
        if after.stored.token.value != task.token.value:
            return Outcome.OTHER_STAYS
        if _landing(task, after.stored, after.life) is Landing.ON_TIME:
            return Outcome.ON_TIME
        if after.life is None or after.life < life:
            if after.life in task.limits:
                return Outcome.LIMITED
            # It may be the mount or another writer of the path's metadata: a second try distinguishes them.
            task.limits.add(after.life)
        return Outcome.MISTIMED

    def _given_up(self, task: Task, state: PathState) -> PathState:
        """The state of the path when the token is too old to be written; what Vault would keep too long is overwritten."""
        if task.times.delayed:  # A write that was given up may have been carried out.
            state = self.read(task.identity, task.token.kind, task.deadline)
        if state.stored is None or state.stored.token.value != task.token.value:
            return PathState(state.version)
        if _landing(task, state.stored, state.life) is not Landing.LATE:
            return state
        self._set_life(task, state, 1)
        ref, data = task.ref, without_token(self.data(task, state), task.token.kind)
        try:
            metadata, _ = self.client.write(ref.mount, ref.path, data, state.version, task.deadline)
        except CasMismatchError:
            return self.read(task.identity, task.token.kind, task.deadline)
        return PathState(metadata["version"])


def _landing(task: Task, stored: StoredToken, life: int | None) -> Landing:
    return landing(parse_rfc3339(stored.ref.deletion_time), life, task.end, task.times)


def _state(metadata: dict[str, Any], data: Mapping[str, Any] | None, stored: StoredToken | None) -> PathState:
    """The state of a path with this version metadata and data."""
    created, deletion = (parse_rfc3339(metadata[name]) for name in ("created_time", "deletion_time"))
    life = round(deletion - created) if deletion and created else None
    return PathState(
        metadata["version"],
        life,
        stored,
        issuer_in(metadata),
        rejected_at=rejected_at(data),
        manifest=manifest_in(metadata.get("custom_metadata")),
    )


def _warn_of_limit(life: int | None) -> None:
    if life is None:
        _log.warning(
            "the `delete_version_after` of the KV mount switches expiry off: Vault will keep the token after its JWT "
            "has expired. Set it to 0s (vault write MOUNT/config delete_version_after=0s)"
        )
    else:
        _log.warning("the `delete_version_after` of the KV mount deletes the token after %d s", life)
