"""One identity in several Vaults: a token is minted once and stored in all of them, or copied from one to the others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event
from typing import Literal, NamedTuple

from vault_plugin.app import REVOKE_TIMEOUT, connect, once
from vault_plugin.broker import Broker, Grant
from vault_plugin.broker.inventory import Inventory
from vault_plugin.errors import StoreError
from vault_plugin.output.formats import describe
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.stored import WrappingToken


class EnsureResult(NamedTuple):
    """How each Vault got a valid access token of an identity; `grant` is the one that expires first."""

    result: Literal["fresh", "minted", "copied"]
    grant: Grant


class Targets:
    """A broker for each Vault. Safe among threads."""

    def __init__(self, brokers: Sequence[Broker], limiters: Sequence[AdaptiveRateLimiter] = ()) -> None:
        self._brokers = brokers
        self._limiters = limiters

    @property
    def inventories(self) -> list[Inventory]:
        """What each Vault stores."""
        return [broker.inventory for broker in self._brokers if broker.inventory]

    @property
    def are_several(self) -> bool:
        """Whether there is more than one Vault."""
        return len(self._brokers) > 1

    @property
    def deadline(self) -> float:
        """Maximum duration of a call in seconds, over all Vaults."""
        return max(broker.deadline for broker in self._brokers)

    @contextmanager
    def slot(self, stopping: Event) -> Iterator[bool]:
        """Wait until each Vault accepts enough requests for one more identity; False if `stopping` is set before."""
        with ExitStack() as stack:
            # All callers take them in the same order, or two could wait for each other without end.
            yield all(stack.enter_context(limiter.identity(stopping)) for limiter in self._limiters)

    def check(
        self, identity: Identity, *, min_ttl: float | None = None, repair: bool = False
    ) -> EnsureResult | None:
        """Return what `ensure` would find valid in each Vault; None if it would mint or copy.

        Only reads, except that `repair` corrects a token that Vault would delete too late. Raises what Broker.stored
        raises.
        """
        deadline = Deadline(self.deadline)
        grants = [
            broker.stored(identity, min_ttl=min_ttl, repair=repair, deadline=deadline)
            for broker in self._brokers
        ]
        found = [grant for grant in grants if grant]
        return EnsureResult("fresh", _first_to_expire(found)) if len(found) == len(grants) else None

    def wrap(self, grant: Grant, ttl: float) -> WrappingToken:
        """Have the first Vault return, once and within `ttl` seconds, what `get` would print of the grant as JSON.

        Raises what Broker.wrap raises.
        """
        fields = describe(grant)
        if len(self._brokers) > 1:
            del fields["vault"]  # another Vault than the first one may have found the token
        return self._brokers[0].wrap(grant, fields, ttl)

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False, renew: bool = False
    ) -> EnsureResult:
        """Ensure that each Vault has a valid access token, by at most one mint; by another one if the first Vault cannot
        store it.

        A Vault that fails does not keep the others from getting the token; its error is raised at the end. `cautious`
        mints only if the token can be stored. `renew` mints although there is a valid token. Raises what Broker.ensure raises.
        """
        if self.are_several:
            return self._ensure_all(identity, min_ttl, cautious=cautious, renew=renew)
        only = self._brokers[0]  # no other Vault to look for a token in
        return _result_of(only.ensure(identity, min_ttl=min_ttl, cautious=cautious, renew=renew))

    def _ensure_all(
        self, identity: Identity, min_ttl: float | None, *, cautious: bool, renew: bool
    ) -> EnsureResult:
        """See `ensure`, for several Vaults."""
        deadline = Deadline(self.deadline)
        failures: list[StoreError] = []
        held: list[tuple[Broker, Grant]] = []
        lacking: list[Broker] = []
        for broker in self._brokers:
            with _set_aside(failures):
                grant = (
                    None
                    if renew
                    else broker.stored(identity, min_ttl=min_ttl, repair=True, deadline=deadline)
                )
                if grant:
                    held.append((broker, grant))
                else:
                    lacking.append(broker)
        while lacking and not held:
            broker = lacking.pop(0)
            with _set_aside(failures):
                grant = broker.ensure(
                    identity, min_ttl=min_ttl, deadline=deadline, cautious=cautious, renew=renew
                )
                held.append((broker, grant))
        for broker in lacking:
            with _set_aside(failures):
                broker.adopt(identity, held[0][0], deadline, renew=renew)
        if failures:
            if held:  # then the failure of one Vault does not concern the mints of other identities
                failures[0].for_all = False
            raise failures[0]
        ensured = _result_of(_first_to_expire([grant for _, grant in held]))
        return ensured._replace(result="copied") if lacking and ensured.result == "fresh" else ensured


@contextmanager
def _set_aside(failures: list[StoreError]) -> Iterator[None]:
    try:
        yield
    except StoreError as exc:
        failures.append(exc)


def _result_of(grant: Grant) -> EnsureResult:
    return EnsureResult("minted" if grant.source == "endpoint" else "fresh", grant)


def _first_to_expire(grants: list[Grant]) -> Grant:
    return min(grants, key=lambda grant: grant.access.token.expires_at)


def _within(gather: Callable[..., Settings], deadline: Deadline) -> Settings:
    return gather(deadline=f"{max(0.001, deadline.left()):.3f}")


@contextmanager
def connect_all(gather: Sequence[Callable[..., Settings]], manifest: str = "") -> Iterator[Targets]:
    """Connect to the Vaults whose settings these functions gather, now and when a login expires.

    Flags that they are called with take precedence over their own. What is stored belongs to the `manifest` of that name.
    """
    farewell = once(lambda: Deadline(REVOKE_TIMEOUT))  # shared, as they are closed one after the other
    with ExitStack() as stack:
        limiters = [AdaptiveRateLimiter() for _ in gather]
        brokers = [
            stack.enter_context(
                connect(
                    one(),
                    reread=partial(_within, one),
                    bulk=True,
                    limiter=limiter,
                    manifest=manifest,
                    closing_deadline=farewell,
                )
            )
            for one, limiter in zip(gather, limiters, strict=True)
        ]
        yield Targets(brokers, limiters)
