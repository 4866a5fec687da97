"""One identity in several Vaults: one mint lands in all of them, and what one holds is copied to the others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event
from typing import Literal, NamedTuple

from vault_plugin.app import REVOKE_TIMEOUT, connect, once
from vault_plugin.broker import Broker, Grant
from vault_plugin.errors import StoreError
from vault_plugin.settings import Settings
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.throttle import Throttle
from vault_plugin.tokens.identity import Identity


class Outcome(NamedTuple):
    """How an identity's access token came to be good everywhere; `grant` is the one that ends first."""

    result: Literal["fresh", "minted", "copied"]
    grant: Grant


class Targets:
    """A broker for each Vault. Safe among threads."""

    def __init__(self, brokers: Sequence[Broker], throttles: Sequence[Throttle] = ()) -> None:
        self._brokers = brokers
        self._throttles = throttles

    @property
    def deadline(self) -> float:
        """Seconds that a call takes at most, over all Vaults."""
        return max(broker.deadline for broker in self._brokers)

    @contextmanager
    def slot(self, stopping: Event) -> Iterator[bool]:
        """Hold one identity back until each Vault accepts enough requests; False if `stopping` is set before."""
        with ExitStack() as stack:
            # All callers take them in the same order, so that none waits for another in a circle.
            yield all(stack.enter_context(throttle.identity(stopping)) for throttle in self._throttles)

    def check(
        self, identity: Identity, *, min_ttl: float | None = None, repair: bool = False
    ) -> Outcome | None:
        """What `ensure` would find good everywhere; None where it would mint or copy.

        Only reads, except that with `repair` a token that Vault would delete too late is corrected. Raises what
        Broker.stored raises.
        """
        deadline = Deadline(self.deadline)
        grants = [
            broker.stored(identity, min_ttl=min_ttl, repair=repair, deadline=deadline)
            for broker in self._brokers
        ]
        found = [grant for grant in grants if grant]
        return Outcome("fresh", _first_to_end(found)) if len(found) == len(grants) else None

    def ensure(self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False) -> Outcome:
        """Make the identity's access token good in each Vault, by one mint; by another, where that one's Vault then does not
        take it.

        A Vault that fails does not keep the token from the others; its error is raised at the end. `cautious`: where a
        token could not be stored, none is minted. Raises what Broker.ensure raises.
        """
        if len(self._brokers) == 1:  # a look at the others, to find a token there, is a request
            return _outcome(self._brokers[0].ensure(identity, min_ttl=min_ttl, cautious=cautious))
        deadline = Deadline(self.deadline)
        failures: list[StoreError] = []
        good: list[tuple[Broker, Grant]] = []
        lacking: list[Broker] = []
        for broker in self._brokers:
            with _set_aside(failures):
                grant = broker.stored(identity, min_ttl=min_ttl, repair=True, deadline=deadline)
                if grant:
                    good.append((broker, grant))
                else:
                    lacking.append(broker)
        while lacking and not good:
            broker = lacking.pop(0)
            with _set_aside(failures):
                grant = broker.ensure(identity, min_ttl=min_ttl, deadline=deadline, cautious=cautious)
                good.append((broker, grant))
        for broker in lacking:
            with _set_aside(failures):
                broker.adopt(identity, good[0][0], deadline)
        if failures:
            if good:  # then one Vault's failure concerns no other identity's mint
                failures[0].for_all = False
            raise failures[0]
        outcome = _outcome(_first_to_end([grant for _, grant in good]))
        return outcome._replace(result="copied") if lacking and outcome.result == "fresh" else outcome


@contextmanager
def _set_aside(failures: list[StoreError]) -> Iterator[None]:
    try:
        yield
    except StoreError as exc:
        failures.append(exc)


def _outcome(grant: Grant) -> Outcome:
    return Outcome("minted" if grant.source == "endpoint" else "fresh", grant)


def _first_to_end(grants: list[Grant]) -> Grant:
    return min(grants, key=lambda grant: grant.access.token.expires_at)


def _within(gather: Callable[..., Settings], deadline: Deadline) -> Settings:
    return gather(deadline=f"{max(0.001, deadline.left()):.3f}")


@contextmanager
def connect_all(gather: Sequence[Callable[..., Settings]]) -> Iterator[Targets]:
    """Targets over the Vaults whose settings these functions gather, at first and when a login has ended.

    Flags that they are called with come before their own.
    """
    farewell = once(lambda: Deadline(REVOKE_TIMEOUT))  # one for all: they are closed one after the other
    with ExitStack() as stack:
        throttles = [Throttle() for _ in gather]
        brokers = [
            stack.enter_context(
                connect(
                    one(),
                    reread=partial(_within, one),
                    bulk=True,
                    throttle=throttle,
                    closing_deadline=farewell,
                )
            )
            for one, throttle in zip(gather, throttles, strict=True)
        ]
        yield Targets(brokers, throttles)
