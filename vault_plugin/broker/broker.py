"""The read-through: a stored token while it is fresh; otherwise one is minted once, stored, and returned."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vault_plugin.broker.freshness import Freshness
from vault_plugin.broker.grant import Grant, checked
from vault_plugin.broker.inventory import Inventory
from vault_plugin.broker.minting import LOCK_SHARE, Minter, MintRequest, States
from vault_plugin.broker.ports import Lock, TokenReader, TokenSource, TokenStore
from vault_plugin.broker.retention import corrected, warn_of_failed_correction, warn_of_overdue
from vault_plugin.errors import BusyError, KlearstackVaultError, SourceError, StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import StoredToken, WrappingToken

_USELESS = "none was found with enough lifetime left"
_log = logging.getLogger(__name__)


class Broker:
    """Returns tokens. Safe among threads."""

    def __init__(
        self,
        *,
        reader: TokenReader | None,
        store: Callable[[], TokenStore],
        source: Callable[[], TokenSource],
        lock: Lock,
        freshness: Freshness,
        deadline: float,
        bypass: bool,
        inventory: Inventory | None = None,
    ) -> None:
        """`deadline` (seconds) is for one call, unless that is given another. `bypass`: mint although Vault is down."""
        self.inventory = inventory
        self._reader = reader
        self._store = store
        self._source = source
        self._lock = lock
        self._freshness = freshness
        self._minter = Minter(
            reader=reader, store=store, source=source, lock=lock, freshness=freshness, bypass=bypass
        )
        self.deadline = deadline
        self._bypass = bypass

    def get(
        self, identity: Identity, kinds: Collection[Kind] = (Kind.ACCESS,), *, renew: bool = False
    ) -> Grant:
        """Return tokens of these kinds with at least `min_ttl` seconds left, or half of their lifetime if that is less.

        A stored one costs one read each and no mint, unless `renew` requires a newer one; if Vault would keep it
        beyond its `exp`, that is corrected. With the endpoint down or busy, a stored token that has not expired is
        returned, marked `stale`. One of another endpoint is refused, unless `renew` replaces it.

        Raises SourceError, TokenError, StoreError and their subclasses; BusyError if another process holds the lock until
        the deadline; OutputError if there can be no lock.
        """
        return checked(identity, self._got(identity, kinds, renew=renew))

    def _got(self, identity: Identity, kinds: Collection[Kind], *, renew: bool) -> Grant:
        deadline = Deadline(self.deadline)
        states: States = {}
        try:
            previous = self._first_look(identity, kinds, deadline, thorough=renew)
            if not renew and previous and (grant := self._on_time(identity, kinds, previous, deadline)):
                _log.info("using the stored token, which is valid for another %d s", grant.shortest_ttl)
                return grant
            if previous is not None or renew:
                _log.info("no stored token is used: %s", "a new one was requested" if renew else _USELESS)
            request = MintRequest(identity, kinds, deadline, renew=renew, previous=previous, fallback=True)
            try:
                return self._minter.obtain(request, states)
            except BusyError as exc:
                return self._without_lock(request, exc)
        except StoreError as exc:
            if not (self._bypass and exc.retryable):
                raise
            pair = self._source().obtain(identity, deadline.patient(deadline.left() / 2))
            return self._minter.unstored(pair, kinds, exc)
        except SourceError as exc:
            return self._stale([states[kind].stored for kind in kinds], exc)

    def _first_look(
        self, identity: Identity, kinds: Collection[Kind], deadline: Deadline, *, thorough: bool
    ) -> list[StoredToken | None] | None:
        """Read once, without the lock: retries are for its holder alone. None if nothing can be seen.

        With `thorough`, None for a token says that there is none; otherwise it may have been missed.
        """
        if self._reader:
            found = [self._reader.read(identity, kind, deadline) for kind in kinds]
            if all(found) or not thorough:
                return found
        once = deadline.half().patient(0)
        try:
            return [self._store().read(identity, kind, once).stored for kind in kinds]
        except StoreError as exc:
            if exc.unrepeatable or not exc.retryable:
                raise
            _log.info("%s Retrying with the lock of this identity", exc)
            return None

    def _without_lock(self, request: MintRequest, exc: BusyError) -> Grant:
        """Read once more after the wait for the lock: if its holder waits for Vault, that is the cause to report."""
        once = request.deadline.half().patient(0)
        stored = [self._store().read(request.identity, kind, once).stored for kind in request.kinds]
        if request.accepts(stored) and (grant := self._freshness.fresh(stored)):
            return grant._replace(waited=True)
        return self._stale(stored, exc)

    def _stale(self, stored: list[StoredToken | None], exc: SourceError | BusyError) -> Grant:
        """Return these tokens although they are not fresh, if they have not expired. Otherwise raise `exc`."""
        stale = self._freshness.valid(stored, stale=True)
        if stale is None or not exc.retryable:
            raise exc
        _log.warning("%s Using the stored token, which expires in %d s.", exc, stale.shortest_ttl)
        return stale

    def stored(
        self,
        identity: Identity,
        kinds: Collection[Kind] = (Kind.ACCESS,),
        *,
        min_ttl: float | None = None,
        repair: bool = False,
        deadline: Deadline | None = None,
    ) -> Grant | None:
        """Return what `get` would find in Vault, by its rules of freshness; None where it would mint.

        Nothing is minted. Nothing is written, either: a token that Vault would keep too long is reported, or with
        `repair` corrected. Raises StoreError and its subclasses.
        """
        deadline = deadline or Deadline(self.deadline)
        reader = self._reader
        found = [reader.read(identity, kind, deadline) for kind in kinds] if reader else []
        if not found or self._freshness.fresh(found, min_ttl) is None:
            found = [self._store().read(identity, kind, deadline.half()).stored for kind in kinds]
            self._freshness.raise_for_other_endpoint(found)
        if repair:
            grant = self._on_time(identity, kinds, found, deadline, min_ttl)
        else:
            grant = self._freshness.fresh(found, min_ttl)
            if grant and grant.overdue:
                warn_of_overdue(grant.overdue)
        return grant and checked(identity, grant)

    def ensure(
        self,
        identity: Identity,
        *,
        min_ttl: float | None = None,
        deadline: Deadline | None = None,
        cautious: bool = False,
        renew: bool = False,
    ) -> Grant:
        """Ensure that Vault has a fresh access token (and, if it has to be minted, a refresh token), by `get`'s rules.

        For many identities: the lock comes first, so that a fresh token costs one read, and no other token a second one.
        Nothing stale is returned, since the caller has to know what failed. For `min_ttl`, `cautious` and `renew` see
        MintRequest.

        Raises what `get` raises.
        """
        deadline = deadline or Deadline(self.deadline)
        kinds = (Kind.ACCESS,)
        previous = self._first_look(identity, kinds, deadline, thorough=True) if renew else None
        request = MintRequest(
            identity, kinds, deadline, renew=renew, previous=previous, min_ttl=min_ttl, cautious=cautious
        )
        return checked(identity, self._minter.obtain(request, {}))

    def adopt(
        self,
        identity: Identity,
        origin: "Broker",
        deadline: Deadline | None = None,
        *,
        renew: bool = False,
    ) -> None:
        """Copy what the Vault of another broker holds; nothing is minted. `renew` also replaces another endpoint's token.

        Raises StoreError and its subclasses, TokenError.
        """
        deadline = deadline or Deadline(self.deadline)
        store, freshness = self._store(), self._freshness
        for kind in (Kind.REFRESH, Kind.ACCESS):  # in the order of a mint
            theirs = origin._store().read(identity, kind, deadline.half()).stored  # noqa: SLF001  of the same class
            if theirs is not None and theirs.token.is_of(freshness.endpoint):
                state = store.read(identity, kind, deadline.half())
                if not renew:
                    freshness.raise_for_other_endpoint([state.stored])
                state = corrected(store, identity, state, deadline)
                age = theirs.age(origin._freshness.vault_now())  # noqa: SLF001  of the same class
                written = store.write(identity, theirs.token, theirs.release_version, state, deadline, age)
                freshness.raise_for_other_endpoint([written])

    def reject(self, identity: Identity, value: Secret) -> None:
        """Have the next call mint, if this is the stored access token: a server has rejected it.

        One rejection per minute counts, and no other token is removed. Raises StoreError and its subclasses; BusyError
        and OutputError as `get` does.
        """
        deadline = Deadline(self.deadline)
        with self._lock(identity, deadline.part(LOCK_SHARE)):
            state = self._store().read(identity, Kind.ACCESS, deadline.half())
            if state.stored and state.stored.token.value == value:
                self._store().reject(identity, state, deadline)

    def wrap(
        self, grant: Grant, fields: Mapping[str, Any], ttl: float, deadline: Deadline | None = None
    ) -> WrappingToken:
        """Have Vault return these fields of the grant once, within `ttl` seconds and before one of its tokens expires.

        Raises StoreError and its subclasses; TokenError if too little time is left.
        """
        return self._store().wrap(
            fields, ttl, lambda: grant.left(self._freshness.now()), deadline or Deadline(self.deadline)
        )

    def _on_time(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        stored: list[StoredToken | None],
        deadline: Deadline,
        min_ttl: float | None = None,
    ) -> Grant | None:
        """Return these tokens if they are fresh; where Vault would keep one beyond its `exp`, after correcting that.

        What prevents the correction does not keep a fresh token from the caller.
        """
        grant = self._freshness.fresh(stored, min_ttl)
        if grant is None or not grant.overdue:
            return grant
        try:
            with self._lock(identity, deadline.half()):
                states = [self._store().read(identity, kind, deadline.half()) for kind in kinds]
                stored = [corrected(self._store(), identity, state, deadline).stored for state in states]
        except KlearstackVaultError as exc:
            warn_of_failed_correction(grant.overdue, exc)
        return self._freshness.fresh(stored, min_ttl)
