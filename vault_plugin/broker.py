"""Read-through: from Vault while it is good, else minted once, stored, and handed over."""

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from os import EX_TEMPFAIL, EX_UNAVAILABLE
from typing import Literal, NamedTuple, Protocol

from vault_plugin.errors import BusyError, KlearstackVaultError, SourceError, StoreError, TokenError
from vault_plugin.identity import Identity
from vault_plugin.record import Slot, Stored, VaultRef
from vault_plugin.retry import Deadline
from vault_plugin.tokens import Kind, Token, TokenPair

_log = logging.getLogger(__name__)


class TokenReader(Protocol):
    """A quick look that may fail to see: None says nothing."""

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> Stored | None: ...


class TokenStore(Protocol):
    """The truth about what is stored; `write` returns what is stored at the end, which may be another's token."""

    def read(self, identity: Identity, kind: Kind, deadline: Deadline) -> Slot: ...
    def write(
        self, identity: Identity, token: Token, release_version: str, slot: Slot, deadline: Deadline
    ) -> Stored: ...


class TokenSource(Protocol):
    """Mints tokens."""

    def obtain(self, identity: Identity, deadline: Deadline) -> TokenPair: ...


class Flight(Protocol):
    """Single-flight: whoever enters is alone with this identity on this host, and learns whether it had to wait."""

    def __call__(self, identity: Identity, deadline: Deadline) -> AbstractContextManager[bool]: ...


class Held(NamedTuple):
    """A token and where it lies, unless Vault was bypassed."""

    token: Token
    ref: VaultRef | None


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
        return min(held.token.ttl(self.now) for held in self.held.values())

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
        reader: TokenReader,
        store: Callable[[], TokenStore],
        source: Callable[[], TokenSource],
        flight: Flight,
        now: Callable[[], float],
        min_ttl: float,
        deadline: float,
        bypass: bool,
    ) -> None:
        self._reader = reader
        self._store = store
        self._source = source
        self._flight = flight
        self._now = now
        self._min_ttl = min_ttl
        self.deadline = deadline  # seconds; for one call unless it is given another
        self._bypass = bypass

    def get(
        self, identity: Identity, kinds: Collection[Kind] = (Kind.ACCESS,), *, renew: bool = False
    ) -> Grant:
        """Tokens of these kinds with at least `min_ttl` seconds left, or half of their life if that is less.

        A stored one costs one read each and no minting, unless `renew` wants a newer one. With the endpoint down or
        too busy, a stored token that still lives is returned, marked `stale`.

        Raises SourceError, TokenError, StoreError and their branches; BusyError if another process mints until the
        deadline; OutputError if there can be no lock.
        """
        deadline = Deadline(self.deadline)
        if not renew and (
            grant := self._fresh([self._reader.read(identity, kind, deadline) for kind in kinds])
        ):
            return grant
        try:
            seen = self._seen(identity, kinds, deadline)
            if not renew and (grant := self._fresh(seen)):
                return grant
            return self._minted(identity, kinds, deadline, outworn=seen if renew else None)
        except StoreError as exc:
            if not (self._bypass and _is_outage(exc)):
                raise
            return self._unstored(self._source().obtain(identity, deadline), kinds, exc)
        except (SourceError, BusyError) as exc:
            if not (_is_outage(exc) and (stale := self._granted(seen, "vault", stale=True))):
                raise
            _log.warning(
                "%s The stored token is used, which lives for another %d s.", exc, stale.shortest_ttl
            )
            return stale

    def stored(
        self,
        identity: Identity,
        kinds: Collection[Kind] = (Kind.ACCESS,),
        *,
        min_ttl: float | None = None,
        deadline: Deadline | None = None,
    ) -> Grant | None:
        """What `get` would find in Vault, by its rules of freshness; None where it would mint.

        Nothing is minted or written. Raises StoreError and its branches.
        """
        deadline = deadline or Deadline(self.deadline)
        quick = self._fresh([self._reader.read(identity, kind, deadline) for kind in kinds], min_ttl)
        return quick or self._fresh(self._seen(identity, kinds, deadline), min_ttl)

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, deadline: Deadline | None = None
    ) -> Grant:
        """For bulk: a good access token in Vault (and, if it has to be minted, a refresh token), by `get`'s rules.

        The lock comes first, so that a good token costs one read, and no other a second look at it. There is nothing
        stale: whoever keeps many tokens good wants to know what failed. `min_ttl` (seconds) is for this call.

        Raises what `get` raises.
        """
        deadline = deadline or Deadline(self.deadline)
        return self._minted(identity, (Kind.ACCESS,), deadline, min_ttl=min_ttl)

    def adopt(self, identity: Identity, origin: "Broker", deadline: Deadline | None = None) -> None:
        """Store what the Vault of another broker holds: no minting. Raises StoreError and its branches, TokenError."""
        deadline = deadline or Deadline(self.deadline)
        for kind in (Kind.REFRESH, Kind.ACCESS):  # in the order of a minting
            theirs = origin._store().read(identity, kind, deadline.half()).stored  # noqa: SLF001  of our own class
            if theirs is not None:
                slot = self._store().read(identity, kind, deadline.half())
                self._store().write(identity, theirs.token, theirs.release_version, slot, deadline)

    def _minted(
        self,
        identity: Identity,
        kinds: Collection[Kind],
        deadline: Deadline,
        *,
        outworn: list[Stored | None] | None = None,
        min_ttl: float | None = None,
    ) -> Grant:
        """With nobody else of this host at it: look again, then mint and store. `outworn` won't do any more."""
        with self._flight(identity, deadline.half()) as waited:
            slots = {kind: self._store().read(identity, kind, deadline.half()) for kind in kinds}
            stored = [slots[kind].stored for kind in kinds]
            if stored != outworn and (grant := self._fresh(stored, min_ttl)):
                return grant._replace(waited=waited)
            for kind in Kind:
                if kind not in slots:
                    slots[kind] = self._store().read(identity, kind, deadline.half())
            pair = self._source().obtain(identity, deadline.half())
            try:
                # The access token comes last: whoever finds it finds the refresh token too.
                landed = {
                    token.kind: self._store().write(
                        identity, token, pair.release_version, slots[token.kind], deadline
                    )
                    for token in (pair.refresh, pair.access)
                }
            except StoreError as exc:
                if not (self._bypass and _is_outage(exc)):
                    raise
                return self._unstored(pair, kinds, exc)
        ours = all(
            landed[token.kind].token.value == token.value for token in pair.tokens if token.kind in kinds
        )
        grant = self._granted([landed[kind] for kind in kinds], "endpoint" if ours else "vault", stale=False)
        if grant is None:
            raise TokenError(
                "The token expired while it was being stored.", hint="Its life is too short to be used."
            )
        return grant._replace(waited=waited)

    def _seen(self, identity: Identity, kinds: Collection[Kind], deadline: Deadline) -> list[Stored | None]:
        return [self._store().read(identity, kind, deadline.half()).stored for kind in kinds]

    def _fresh(self, stored: list[Stored | None], min_ttl: float | None = None) -> Grant | None:
        grant = self._granted(stored, "vault", stale=False)
        wanted = self._min_ttl if min_ttl is None else min_ttl
        if grant is None or not all(
            held.token.expires_at - grant.now >= held.token.margin(wanted) for held in grant.held.values()
        ):
            return None
        return grant

    def _granted(
        self, stored: Collection[Stored | None], source: Literal["vault", "endpoint"], *, stale: bool
    ) -> Grant | None:
        """All of them, if all of them live."""
        now = self._now()
        held = {one.token.kind: Held(one.token, one.ref) for one in stored if one and one.token.ttl(now)}
        return Grant(held, source, stale, now) if len(held) == len(stored) else None

    def _unstored(self, pair: TokenPair, kinds: Collection[Kind], exc: StoreError) -> Grant:
        _log.warning("%s The token was minted WITHOUT being stored: each further call mints again.", exc)
        held = {token.kind: Held(token, None) for token in pair.tokens if token.kind in kinds}
        return Grant(held, "endpoint", stale=False, now=self._now())


def _is_outage(exc: KlearstackVaultError) -> bool:
    """Whether a side is down or too busy; a refusal is none, and nothing may paper over it."""
    return exc.exit_code in (EX_UNAVAILABLE, EX_TEMPFAIL)
