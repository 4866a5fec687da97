"""One identity in several Vaults: one mint lands in all of them, and what one holds is copied to the others."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from threading import Event
from typing import Literal, NamedTuple

from vault_plugin.app import REVOKE_TIMEOUT, connect, once
from vault_plugin.broker import Broker, Grant
from vault_plugin.errors import SettingsError, StoreError
from vault_plugin.manifest.row import Row
from vault_plugin.settings import Settings
from vault_plugin.settings.declarations import without_credentials
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.throttle import Throttle
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.secret import Secret

Flags = Mapping[str, str | bool | None]

_SETTINGS = {
    "address": "vault_addr",
    "namespace": "vault_namespace",
    "cacert": "vault_cacert",
    "client_cert": "vault_client_cert",
    "client_key": "vault_client_key",
    "auth": "auth",
    "auth_mount": "auth_mount",
    "auth_role": "auth_role",
    "mount": "mount",
    "path_prefix": "path_prefix",
}
# By file only: a manifest is no place for a secret.
_CREDENTIALS = {
    "token_file": "VAULT_TOKEN_FILE",
    "role_id_file": "VAULT_ROLE_ID_FILE",
    "secret_id_file": "VAULT_SECRET_ID_FILE",
    "jwt_file": "VAULT_JWT_FILE",
}
KEYS = (*_SETTINGS, *_CREDENTIALS)


def settings_of(row: Row | None, flags: Flags, environ: Mapping[str, str] | None = None) -> Settings:
    """A target's settings: its own first, then those of the command line and the environment.

    What the environment has to log in with belongs to the Vault that it names: a target with an address of its own gets
    none of that, and no part of the way to that Vault. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    flags = {**flags, "on_vault_error": "fail"}  # a token that is stored nowhere is none of many
    fields_of_row = {} if row is None else row.fields
    own = {_SETTINGS[name]: text for name, text in fields_of_row.items() if name in _SETTINGS}
    credentials = {_CREDENTIALS[name]: text for name, text in fields_of_row.items() if name in _CREDENTIALS}
    if credentials:
        environ = without_credentials(environ)
    if "vault_addr" not in own:
        return Settings.for_many({**environ, **credentials}, **{**flags, **own})
    way = {one.name: one for one in fields(Settings) if one.name.startswith(("vault_", "auth"))}
    secret = [one for one in fields(Settings) if one.metadata["origin"].read is Secret]
    closed = {name for one in (*way.values(), *secret) for name in one.metadata["origin"].env} | {"HOME"}
    rest = {name: text for name, text in environ.items() if name.removesuffix("_FILE") not in closed}
    try:
        kept = {name: flag for name, flag in flags.items() if name not in way}
        return Settings.for_many({**rest, **credentials}, **{**kept, **own})
    except SettingsError as exc:
        raise SettingsError(
            f"with an address of its own it is given nothing that belongs to another Vault: {exc}"
        ) from None


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
