"""Mint a token: with the lock of the identity, look it up again, request new tokens, and store them."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from vault_plugin.broker.freshness import Freshness
from vault_plugin.broker.grant import Grant, GrantedToken
from vault_plugin.broker.ports import Lock, LockHandle, TokenReader, TokenSource, TokenStore
from vault_plugin.broker.retention import corrected
from vault_plugin.errors import SourceError, StoreError, TokenError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind, Token, TokenSet
from vault_plugin.tokens.stored import PathState, StoredToken

BACKOFF = 1.0  # seconds at most between two requests to a Vault that fails
LOCK_SHARE = 0.75  # of the time left: longer than the half that the holder has for the endpoint
States = dict[Kind, PathState]
_log = logging.getLogger(__name__)


class MintRequest(NamedTuple):
    """What is to be minted, for whom, and under which conditions.

    `previous` are the stored tokens that `renew` is to replace, None if they are not known. With `fallback` the caller
    can use a stored token that has not expired. `min_ttl` (seconds) takes the place of the setting. If `cautious`, nothing
    is minted before Vault has accepted a write to the token's path.
    """

    identity: Identity
    kinds: Collection[Kind]
    deadline: Deadline
    renew: bool = False
    previous: list[StoredToken | None] | None = None
    fallback: bool = False
    min_ttl: float | None = None
    cautious: bool = False

    def accepts(self, stored: list[StoredToken | None]) -> bool:
        """Whether stored tokens satisfy `renew`: only if they are known to be others than the previous ones.

        A version that only deletes the same token earlier is no other token.
        """
        if not self.renew:
            return True
        return self.previous is not None and _tokens(stored) != _tokens(self.previous)

    def stored(self, states: Mapping[Kind, PathState]) -> list[StoredToken | None]:
        """The tokens of the requested kinds in these states."""
        return [states[kind].stored for kind in self.kinds]


def _tokens(stored: list[StoredToken | None]) -> list[Token | None]:
    return [one and one.token for one in stored]


class Minter:
    """Mints at most one pair of tokens per identity at a time. Safe among threads."""

    def __init__(
        self,
        *,
        reader: TokenReader | None,
        store: Callable[[], TokenStore],
        source: Callable[[], TokenSource],
        lock: Lock,
        freshness: Freshness,
        bypass: bool,
    ) -> None:
        self._reader = reader
        self._store = store
        self._source = source
        self._lock = lock
        self._freshness = freshness
        self._bypass = bypass

    def obtain(self, request: MintRequest, states: States) -> Grant:
        """Return fresh tokens that are stored by now, or mint. Fill `states` with what was read of Vault.

        Raises what Broker.get raises; nothing stale is returned.
        """
        retries = request.deadline.half()
        with self._lock(request.identity, request.deadline.part(LOCK_SHARE)) as handle:
            grant = self._minted_by_another(request, handle, states) if handle.waited else None
            grant = grant or self._stored(request, retries, states, waited=handle.waited)
            if grant is None:
                grant = self._minted(request, handle, states)
        return grant._replace(waited=handle.waited)

    def unstored(self, pair: TokenSet, kinds: Collection[Kind], exc: StoreError) -> Grant:
        """Grant tokens that could not be stored, with a warning."""
        _log.warning("%s The token was minted WITHOUT being stored: each further call mints again.", exc)
        tokens = {token.kind: GrantedToken(token, None) for token in pair.tokens if token.kind in kinds}
        return Grant(tokens, "endpoint", stale=False, now=self._freshness.now())

    def _minted_by_another(self, request: MintRequest, handle: LockHandle, states: States) -> Grant | None:
        """Return what the previous holder of the lock stored, if a quick read shows it, or raise how it failed.

        None where neither can be seen, or where Vault failed at the newest quick read. Nothing is imported for this that
        only a mint needs.
        """
        if self._reader is None or self._reader.blind:
            return None
        stored = [self._reader.read(request.identity, kind, request.deadline) for kind in request.kinds]
        if request.accepts(stored):
            grant = self._freshness.fresh(stored)
            if grant and not grant.overdue:
                return grant
        if failure := handle.failure(request.deadline.half()):
            states.update(
                {kind: PathState(stored=one) for kind, one in zip(request.kinds, stored, strict=True)}
            )
            raise failure
        return None

    def _stored(
        self, request: MintRequest, retries: Deadline, states: States, *, waited: bool
    ) -> Grant | None:
        """Read the requested kinds, and return them if they are fresh; what Vault would keep too long is corrected.

        Failed reads are repeated until `retries`, which began before the wait for the lock: the holder retried meanwhile.
        It gave up when a delay would have outlasted that time, and the rest of it is not filled with requests.
        """
        store = self._store()
        patience = retries.left() - (BACKOFF if waited else 0.0)
        for kind in request.kinds:
            deadline = request.deadline.half().patient(patience)
            states[kind] = store.read(request.identity, kind, deadline)
        # Before the correction, which changes the version of a token.
        accepted = request.accepts(request.stored(states))
        for kind in request.kinds:
            states[kind] = corrected(store, request.identity, states[kind], request.deadline)
        return self._freshness.fresh(request.stored(states), request.min_ttl) if accepted else None

    def _minted(self, request: MintRequest, handle: LockHandle, states: States) -> Grant:
        """Request both tokens, and store them."""
        store, identity, deadline = self._store(), request.identity, request.deadline
        # The caller may have requested one kind, but both are minted.
        for kind in set(Kind).difference(states):
            states[kind] = corrected(store, identity, store.read(identity, kind, deadline.half()), deadline)
        if not request.renew:
            self._freshness.raise_for_other_endpoint([state.stored for state in states.values()])
        with store.mint(identity, deadline):
            for kind in states if request.cautious else ():
                states[kind] = store.try_writing(identity, kind, states[kind], deadline.half())
            pair = self._requested(request, handle, states)
            try:
                stored = self._written(request, pair, states)
            except StoreError as exc:
                if not (self._bypass and exc.retryable):
                    raise
                return self.unstored(pair, request.kinds, exc)
        return self._granted(request, pair, stored)

    def _requested(self, request: MintRequest, handle: LockHandle, states: States) -> TokenSet:
        """Request new tokens, unless another caller has just failed to: then raise that failure."""
        if failure := handle.failure(request.deadline.half()):
            raise failure
        fallback = request.fallback and self._freshness.valid(request.stored(states)) is not None
        try:
            pair = self._source().obtain(request.identity, request.deadline.half(), fallback=fallback)
        except SourceError as exc:
            handle.share_failure(exc)
            raise
        handle.clear_failure()
        return pair

    def _written(self, request: MintRequest, pair: TokenSet, states: States) -> dict[Kind, StoredToken]:
        """Store the new tokens; return what is stored at the end."""
        minted_at = self._freshness.vault_now()
        stored: dict[Kind, StoredToken] = {}
        # The access token comes last, so that whoever finds it finds the refresh token as well.
        for token in (pair.refresh, pair.access):
            age = self._freshness.vault_now() - minted_at
            stored[token.kind] = self._store().write(
                request.identity, token, pair.release_version, states[token.kind], request.deadline, age
            )
        return stored

    def _granted(self, request: MintRequest, pair: TokenSet, stored: Mapping[Kind, StoredToken]) -> Grant:
        """Grant what is stored at the end: these tokens, or those of a caller on another host who stored first."""
        self._freshness.raise_for_other_endpoint(stored.values())
        ours = all(
            stored[token.kind].token.value == token.value
            for token in pair.tokens
            if token.kind in request.kinds
        )
        grant = self._freshness.valid(
            [stored[kind] for kind in request.kinds], "endpoint" if ours else "vault"
        )
        if grant is None:
            raise TokenError(
                "The token expired while it was being stored.", hint="Its lifetime is too short to be used."
            )
        return grant
