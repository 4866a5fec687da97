"""Read-through: from Vault while it is good, else minted once, stored, and handed over."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from math import floor
from os import EX_TEMPFAIL, EX_UNAVAILABLE
from typing import Literal, NamedTuple, Protocol

from vault_plugin.errors import (
    BusyError,
    KlearstackVaultError,
    OtherEndpointError,
    SourceError,
    StoreError,
    TokenError,
)
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.secret import Secret
from vault_plugin.tokens.stored import PathState, StoredToken, VaultRef
from vault_plugin.wording import named

LOCK_SHARE = 0.75  # of what is left: longer than the half that the holder has for the endpoint
PAUSE = 1.0  # seconds between two tries of a request to Vault, at most
_USELESS = "none was found with enough lifetime left"
_log = logging.getLogger(__name__)


class TokenReader(Protocol):
    """A quick look that may fail to see: None says nothing. `blind`: Vault failed at the newest one."""

    blind: bool

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> StoredToken | None: ...


class TokenStore(Protocol):
    """The truth about what is stored; `write` returns what is stored at the end, which may be another's token.

    `repair` corrects what Vault would delete only after its JWT has expired. `reject` removes the access token in the slot.

    A new pair of tokens is minted and written within `mint`, which waits until that can be done soon. `try_writing`
    finds out beforehand whether it can be stored.
    """

    def mint(self, identity: Identity, deadline: Deadline) -> AbstractContextManager[None]: ...
    def try_writing(
        self, identity: Identity, kind: Kind, slot: PathState, deadline: Deadline
    ) -> PathState: ...
    def checks_and_sets(self, deadline: Deadline) -> bool: ...
    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> PathState: ...
    def write(
        self,
        identity: Identity,
        token: Token,
        release_version: str,
        slot: PathState,
        deadline: Deadline,
        age: float = 0.0,
    ) -> StoredToken: ...
    def repair(self, identity: Identity, slot: PathState, deadline: Deadline) -> PathState: ...
    def reject(self, identity: Identity, slot: PathState, deadline: Deadline) -> None: ...


class TokenSource(Protocol):
    """Mints tokens. `fallback`: the caller has a stored token to use if that fails, and should not wait for long."""

    def obtain(self, identity: Identity, deadline: Deadline, *, fallback: bool = False) -> TokenSet: ...


class Turn(Protocol):
    """The time in which nobody else of this host is at the identity. `waited`: another caller was, just before."""

    waited: bool

    def failure(self, deadline: Deadline) -> SourceError | None:
        """How the endpoint failed for another caller, if it fails alike for one who would ask it by this deadline.

        It has happened after the call had begun to which the deadline belongs.
        """

    def failed(self, exc: SourceError) -> None:
        """Tell those who wait that the endpoint failed in this way."""

    def responded(self) -> None:
        """Tell them that it does not fail any more."""


class Flight(Protocol):
    """Single-flight: whoever enters is alone with this identity on this host."""

    def __call__(self, identity: Identity, deadline: Deadline) -> AbstractContextManager[Turn]: ...


class Held(NamedTuple):
    """A token and where it lies, unless Vault was bypassed.

    `early`: seconds before its `exp` at which it expires by the servers' clocks, as the endpoint's is ahead of Vault's.
    """

    token: Token
    ref: VaultRef | None
    early: float = 0.0

    def left(self, now: float) -> float:
        """Seconds until it expires, at `now` (Unix seconds)."""
        return self.token.expires_at - self.early - now

    def ttl(self, now: float) -> int:
        """The same in whole seconds, never below 0."""
        return max(0, floor(self.left(now)))


class Grant(NamedTuple):
    """What the caller gets. `now` (Unix seconds) is what lifetimes are reckoned from; see clock.py.

    `waited`: another caller was at the same identity, and this one waited for it (single-flight).
    """

    held: Mapping[Kind, Held]
    source: Literal["vault", "endpoint"]
    stale: bool
    now: float
    waited: bool = False

    @property
    def shortest_ttl(self) -> int:
        """Whole seconds until the first of them expires."""
        return min(held.ttl(self.now) for held in self.held.values())

    @property
    def overdue(self) -> float:
        """Seconds by which Vault keeps one of them beyond its `exp`; 0 if it deletes all of them in time."""
        return max(held.ref.overdue(held.token) if held.ref else 0.0 for held in self.held.values())

    @property
    def access(self) -> Held:
        """The access token. Raises KeyError unless it was asked for."""
        return self.held[Kind.ACCESS]

    @property
    def refresh(self) -> Held:
        """The refresh token. Raises KeyError unless it was asked for."""
        return self.held[Kind.REFRESH]


class Broker:
    """Hands over tokens. Safe among threads."""

    def __init__(
        self,
        *,
        reader: TokenReader | None,
        store: Callable[[], TokenStore],
        source: Callable[[], TokenSource],
        flight: Flight,
        now: Callable[[], float],
        endpoint: str,
        vault_now: Callable[[], float],
        min_ttl: float,
        deadline: float,
        bypass: bool,
    ) -> None:
        self._reader = reader
        self._store = store
        self._source = source
        self._flight = flight
        self._now = now
        self._endpoint = endpoint  # the issuer of the tokens that may be handed over
        self._vault_now = vault_now
        self._min_ttl = min_ttl
        self.deadline = deadline  # seconds; for one call unless it is given another
        self._bypass = bypass

    def get(
        self, identity: Identity, kinds: Collection[Kind] = (Kind.ACCESS,), *, renew: bool = False
    ) -> Grant:
        """Tokens of these kinds with at least `min_ttl` seconds left, or half of their life if that is less.

        A stored one costs one read each and no minting, unless `renew` wants a newer one; if Vault would keep it
        beyond its `exp`, that is corrected. With the endpoint down or too busy, a stored token that still lives is
        returned, marked `stale`. One of another endpoint is refused, unless `renew` replaces it.

        Raises SourceError, TokenError, StoreError and their branches; BusyError if another process mints until the
        deadline; OutputError if there can be no lock.
        """
        return _told(identity, self._got(identity, kinds, renew=renew))

    def _got(self, identity: Identity, kinds: Collection[Kind], *, renew: bool) -> Grant:
        deadline = Deadline(self.deadline)
        seen: dict[Kind, PathState] = {}
        try:
            outworn = self._glance(identity, kinds, deadline, thorough=renew)
            if not renew and outworn and (grant := self._on_time(identity, kinds, outworn, deadline)):
                _log.info("the stored token is used: it is valid for another %d s", grant.shortest_ttl)
                return grant
            _log.info("no stored token is used: %s", "a new one was asked for" if renew else _USELESS)
            try:
                return self._minted(
                    identity, kinds, deadline, seen, renew=renew, outworn=outworn, fallback=True
                )
            except BusyError as exc:
                return self._waited_in_vain(identity, kinds, deadline, exc, renew=renew, outworn=outworn)
        except StoreError as exc:
            if not (self._bypass and _is_outage(exc)):
                raise
            pair = self._source().obtain(identity, deadline.patient(deadline.left() / 2))
            return self._unstored(pair, kinds, exc)
        except SourceError as exc:
            return self._stale(_tokens(seen, kinds), exc)

    def _glance(
        self, identity: Identity, kinds: Collection[Kind], deadline: Deadline, *, thorough: bool
    ) -> list[StoredToken | None] | None:
        """What a first look finds: one try, since whoever has to try again does so alone, with the lock.

        None if nothing can be seen. `thorough`: None for a token says that there is none, not that none was seen.
        """
        if self._reader:
            found = [self._reader.read(identity, kind, deadline) for kind in kinds]
            if all(found) or not thorough:
                return found
        once = deadline.half().patient(0)
        try:
            return [self._store().read(identity, kind, once).stored for kind in kinds]
        except StoreError as exc:
            if exc.unrepeatable or not _is_outage(exc):
                raise
            _log.info("%s Now trying again as the only caller of this host", exc)
            return None

    def _waited_in_vain(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        deadline: Deadline,
        exc: BusyError,
        *,
        renew: bool,
        outworn: list[StoredToken | None] | None,
    ) -> Grant:
        """A last look, without the lock: if its holder waits for Vault, that is the cause to be told."""
        once = deadline.half().patient(0)
        stored = [self._store().read(identity, kind, once).stored for kind in kinds]
        if _will_do(stored, renew=renew, outworn=outworn) and (grant := self._fresh(stored)):
            return grant._replace(waited=True)
        return self._stale(stored, exc)

    def _stale(self, stored: list[StoredToken | None], exc: SourceError | BusyError) -> Grant:
        """These tokens although they are not fresh, if they have not expired. Else raise `exc`."""
        stale = self._granted(stored, "vault", stale=True)
        if stale is None or not _is_outage(exc):
            raise exc
        _log.warning("%s The stored token is used, which lives for another %d s.", exc, stale.shortest_ttl)
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
        """What `get` would find in Vault, by its rules of freshness; None where it would mint.

        Nothing is minted. Nothing is written, either: a token that Vault would keep too long is reported, or with
        `repair` corrected. Raises StoreError and its branches.
        """
        deadline = deadline or Deadline(self.deadline)
        reader = self._reader
        found = [reader.read(identity, kind, deadline) for kind in kinds] if reader else []
        if not found or self._fresh(found, min_ttl) is None:
            found = [self._store().read(identity, kind, deadline.half()).stored for kind in kinds]
            self._refuse_others(found)
        if repair:
            grant = self._on_time(identity, kinds, found, deadline, min_ttl)
        else:
            grant = self._fresh(found, min_ttl)
            if grant and grant.overdue:
                _log.warning("%s The next call that may write to Vault corrects it.", _overdue(grant.overdue))
        return grant and _told(identity, grant)

    def ensure(
        self,
        identity: Identity,
        *,
        min_ttl: float | None = None,
        deadline: Deadline | None = None,
        cautious: bool = False,
    ) -> Grant:
        """For bulk: a good access token in Vault (and, if it has to be minted, a refresh token), by `get`'s rules.

        The lock comes first, so that a good token costs one read, and no other a second look at it. There is nothing
        stale: whoever keeps many tokens good wants to know what failed. `min_ttl` (seconds) is for this call. If it is
        `cautious`, nothing is minted before Vault has taken a write to the token's path.

        Raises what `get` raises.
        """
        deadline = deadline or Deadline(self.deadline)
        grant = self._minted(identity, (Kind.ACCESS,), deadline, {}, min_ttl=min_ttl, cautious=cautious)
        return _told(identity, grant)

    def adopt(self, identity: Identity, origin: "Broker", deadline: Deadline | None = None) -> None:
        """Store what the Vault of another broker holds: no minting. Raises StoreError and its branches, TokenError."""
        deadline = deadline or Deadline(self.deadline)
        for kind in (Kind.REFRESH, Kind.ACCESS):  # in the order of a minting
            theirs = origin._store().read(identity, kind, deadline.half()).stored  # noqa: SLF001  of our own class
            if theirs is not None and theirs.token.is_of(self._endpoint):
                slot = self._store().read(identity, kind, deadline.half())
                self._refuse_others([slot.stored])
                slot = self._repaired(identity, slot, deadline)
                age = theirs.age(origin._vault_now())  # noqa: SLF001
                landed = self._store().write(
                    identity, theirs.token, theirs.release_version, slot, deadline, age
                )
                self._refuse_others([landed])

    def reject(self, identity: Identity, value: Secret) -> None:
        """Have the next call mint, if this is the stored access token: a server has rejected it.

        Each minute one rejection counts, and no other token is lost. Raises StoreError and its branches; BusyError and
        OutputError as `get` does.
        """
        deadline = Deadline(self.deadline)
        with self._flight(identity, deadline.part(LOCK_SHARE)):
            slot = self._store().read(identity, Kind.ACCESS, deadline.half())
            if slot.stored and slot.stored.token.value == value:
                self._store().reject(identity, slot, deadline)

    def _on_time(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        stored: list[StoredToken | None],
        deadline: Deadline,
        min_ttl: float | None = None,
    ) -> Grant | None:
        """These tokens, if they are fresh; where Vault would keep one beyond its `exp`, after that was corrected.

        What prevents the correction does not keep a fresh token from the caller.
        """
        grant = self._fresh(stored, min_ttl)
        if grant is None or not grant.overdue:
            return grant
        try:
            with self._flight(identity, deadline.half()):
                slots = [self._store().read(identity, kind, deadline.half()) for kind in kinds]
                stored = [self._repaired(identity, slot, deadline).stored for slot in slots]
        except KlearstackVaultError as exc:
            _warn_of_overdue(grant.overdue, exc)
        return self._fresh(stored, min_ttl)

    def _repaired(self, identity: Identity, slot: PathState, deadline: Deadline) -> PathState:
        """The slot, after its version was corrected if Vault would have kept it too long; as it is where that fails."""
        if slot.stored is None or not slot.stored.overdue:
            return slot
        try:
            return self._store().repair(identity, slot, deadline.half())
        except StoreError as exc:
            _warn_of_overdue(slot.stored.overdue, exc)
            return slot

    def _minted(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        deadline: Deadline,
        slots: dict[Kind, PathState],
        *,
        renew: bool = False,
        outworn: list[StoredToken | None] | None = None,
        fallback: bool = False,
        min_ttl: float | None = None,
        cautious: bool = False,
    ) -> Grant:
        """With nobody else of this host at it: look again, then mint and store.

        `outworn` is what `renew` is to replace, if that is known. What is read meanwhile goes into `slots`. With
        `fallback` the caller can use a stored token that has not expired.
        """
        look = deadline.half()
        with self._flight(identity, deadline.part(LOCK_SHARE)) as turn, ExitStack() as stack:
            if turn.waited and (
                grant := self._left_by_another(
                    identity, kinds, deadline, turn, slots, renew=renew, outworn=outworn
                )
            ):
                return grant
            store = self._store()
            # The time for tries that fail is over when it would be without the wait: another one has tried meanwhile.
            # It gave up when a pause would have outlasted that time, and nobody fills the rest of it with tries.
            patience = look.left() - (PAUSE if turn.waited else 0.0)
            for kind in kinds:
                slots[kind] = store.read(identity, kind, deadline.half().patient(patience))
            will_do = _will_do(_tokens(slots, kinds), renew=renew, outworn=outworn)
            for kind in kinds:
                slots[kind] = self._repaired(identity, slots[kind], deadline)
            if will_do and (grant := self._fresh(_tokens(slots, kinds), min_ttl)):
                return grant._replace(waited=turn.waited)
            self._read_others(identity, slots, deadline)
            if not renew:
                self._refuse_others([slot.stored for slot in slots.values()])
            stack.enter_context(store.mint(identity, deadline))
            for kind in slots if cautious else ():
                slots[kind] = store.try_writing(identity, kind, slots[kind], deadline.half())
            pair = self._pair(identity, deadline, _tokens(slots, kinds), turn, fallback=fallback)
            try:
                landed = self._written(identity, pair, slots, deadline)
            except StoreError as exc:
                if not (self._bypass and _is_outage(exc)):
                    raise
                return self._unstored(pair, kinds, exc)
        self._refuse_others(landed.values())  # one of another endpoint may have come first
        ours = all(
            landed[token.kind].token.value == token.value for token in pair.tokens if token.kind in kinds
        )
        grant = self._granted([landed[kind] for kind in kinds], "endpoint" if ours else "vault", stale=False)
        if grant is None:
            raise TokenError(
                "The token expired while it was being stored.", hint="Its life is too short to be used."
            )
        return grant._replace(waited=turn.waited)

    def _read_others(self, identity: Identity, slots: dict[Kind, PathState], deadline: Deadline) -> None:
        """Read the kinds that the caller did not ask for: both are minted."""
        for kind in set(Kind).difference(slots):
            slot = self._store().read(identity, kind, deadline.half())
            slots[kind] = self._repaired(identity, slot, deadline)

    def _written(
        self, identity: Identity, pair: TokenSet, slots: Mapping[Kind, PathState], deadline: Deadline
    ) -> dict[Kind, StoredToken]:
        """What is stored at the end of a mint."""
        minted_at = self._vault_now()
        landed: dict[Kind, StoredToken] = {}
        # The access token comes last: whoever finds it finds the refresh token too.
        for token in (pair.refresh, pair.access):
            age = self._vault_now() - minted_at
            landed[token.kind] = self._store().write(
                identity, token, pair.release_version, slots[token.kind], deadline, age
            )
        return landed

    def _left_by_another(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        deadline: Deadline,
        turn: Turn,
        slots: dict[Kind, PathState],
        *,
        renew: bool,
        outworn: list[StoredToken | None] | None,
    ) -> Grant | None:
        """What the one before us has made of it, by a quick look: fresh tokens, or the endpoint's failure, which is raised.

        None where neither can be seen, or a quick look would not succeed. What only a mint needs is not loaded for this.
        """
        if self._reader is None or self._reader.blind:
            return None
        stored = [self._reader.read(identity, kind, deadline) for kind in kinds]
        if _will_do(stored, renew=renew, outworn=outworn):
            grant = self._fresh(stored)
            if grant and not grant.overdue:
                return grant._replace(waited=True)
        if failure := turn.failure(deadline.half()):
            slots.update({kind: PathState(stored=one) for kind, one in zip(kinds, stored, strict=True)})
            raise failure
        return None

    def _pair(
        self,
        identity: Identity,
        deadline: Deadline,
        stored: list[StoredToken | None],
        turn: Turn,
        *,
        fallback: bool,
    ) -> TokenSet:
        """A new pair, or the failure of another caller who has just asked for it."""
        if failure := turn.failure(deadline.half()):
            raise failure
        fallback = fallback and self._granted(stored, "vault", stale=True) is not None
        try:
            pair = self._source().obtain(identity, deadline.half(), fallback=fallback)
        except SourceError as exc:
            turn.failed(exc)
            raise
        turn.responded()
        return pair

    def _fresh(self, stored: list[StoredToken | None], min_ttl: float | None = None) -> Grant | None:
        grant = self._granted(stored, "vault", stale=False)
        wanted = self._min_ttl if min_ttl is None else min_ttl
        if grant is None or not all(
            held.left(grant.now) >= held.token.margin(wanted) for held in grant.held.values()
        ):
            return None
        return grant

    def _granted(
        self, stored: Collection[StoredToken | None], source: Literal["vault", "endpoint"], *, stale: bool
    ) -> Grant | None:
        """All of them, if all of them live and are this endpoint's."""
        now, vault_now = self._now(), self._vault_now()
        held = {
            one.token.kind: Held(one.token, one.ref, one.token.expires_at - now - one.left(now, vault_now))
            for one in stored
            if one and one.token.is_of(self._endpoint)
        }
        alive = len(held) == len(stored) and all(one.ttl(now) for one in held.values())
        return Grant(held, source, stale, now) if alive else None

    def _refuse_others(self, stored: Iterable[StoredToken | None]) -> None:
        """Raise OtherEndpointError if a valid token of another endpoint is among them."""
        now = self._now()
        if any(one and one.token.ttl(now) and not one.token.is_of(self._endpoint) for one in stored):
            raise _of_another_endpoint()

    def _unstored(self, pair: TokenSet, kinds: Collection[Kind], exc: StoreError) -> Grant:
        _log.warning("%s The token was minted WITHOUT being stored: each further call mints again.", exc)
        held = {token.kind: Held(token, None) for token in pair.tokens if token.kind in kinds}
        return Grant(held, "endpoint", stale=False, now=self._now())


def _told(identity: Identity, grant: Grant) -> Grant:
    """Warn of a stored token that names another user: only where that is accepted does one get here."""
    if grant.source == "vault" and not all(
        held.token.names(identity.user_id) for held in grant.held.values()
    ):
        _log.warning("the stored token names another user than the one asked for")
    return grant


def _will_do(
    stored: list[StoredToken | None], *, renew: bool, outworn: list[StoredToken | None] | None
) -> bool:
    """Whether these tokens may be used, as far as `renew` goes: only if they are known to be others than before."""
    return not renew or (outworn is not None and stored != outworn)


def _tokens(slots: Mapping[Kind, PathState], kinds: Collection[Kind]) -> list[StoredToken | None]:
    return [slots[kind].stored for kind in kinds]


def _overdue(seconds: float) -> str:
    return f"Vault keeps the token {seconds:.1f} s longer than its JWT lives."


def _warn_of_overdue(seconds: float, why: KlearstackVaultError) -> None:
    _log.warning("%s That cannot be corrected now: %s %s", _overdue(seconds), why, why.hint)


def _is_outage(exc: KlearstackVaultError) -> bool:
    """Whether a side is down or too busy; a refusal is none, and nothing may paper over it."""
    return exc.exit_code in (EX_UNAVAILABLE, EX_TEMPFAIL)


def _of_another_endpoint() -> OtherEndpointError:
    """The error for a path at which a valid token lies that another endpoint issued."""
    return OtherEndpointError(
        f"Another endpoint than the one of {named('url')} issued the token that Vault holds for this identity.",
        hint=f"Give each endpoint its own {named('path_prefix')}, or replace the stored token with {named('renew')}.",
    )
