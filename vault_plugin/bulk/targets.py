"""One identity in several Vaults: a token is minted once and stored in all of them, or copied from one to the others."""

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


class EnsureResult(NamedTuple):
    """How each Vault got a valid access token of an identity; `grant` is the one that expires first."""

    result: Literal["fresh", "minted", "copied"]
    grant: Grant


class Targets:
    """A broker for each Vault. Safe among threads."""

    def __init__(self, brokers: Sequence[Broker], throttles: Sequence[Throttle] = ()) -> None:
        self._brokers = brokers
        self._throttles = throttles

    @property
    def deadline(self) -> float:
        """Maximum duration of a call in seconds, over all Vaults."""
        return max(broker.deadline for broker in self._brokers)

    @contextmanager
    def slot(self, stopping: Event) -> Iterator[bool]:
        """Wait until each Vault accepts enough requests for one more identity; False if `stopping` is set before."""
        with ExitStack() as stack:
            # All callers take them in the same order, or two could wait for each other without end.
            yield all(stack.enter_context(throttle.identity(stopping)) for throttle in self._throttles)

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

    def ensure(
        self, identity: Identity, *, min_ttl: float | None = None, cautious: bool = False
    ) -> EnsureResult:
        """Ensure that each Vault has a valid access token, by at most one mint; by another one if the first Vault cannot
        store it.

        A Vault that fails does not keep the others from getting the token; its error is raised at the end. `cautious`
        mints only if the token can be stored. Raises what Broker.ensure raises.
        """
        if len(self._brokers) == 1:  # no other Vault to look for a token in
            return _result_of(self._brokers[0].ensure(identity, min_ttl=min_ttl, cautious=cautious))
        deadline = Deadline(self.deadline)
        failures: list[StoreError] = []
        held: list[tuple[Broker, Grant]] = []
        lacking: list[Broker] = []
        for broker in self._brokers:
            with _set_aside(failures):
                grant = broker.stored(identity, min_ttl=min_ttl, repair=True, deadline=deadline)
                if grant:
                    held.append((broker, grant))
                else:
                    lacking.append(broker)
        while lacking and not held:
            broker = lacking.pop(0)
            with _set_aside(failures):
                grant = broker.ensure(identity, min_ttl=min_ttl, deadline=deadline, cautious=cautious)
                held.append((broker, grant))
        for broker in lacking:
            with _set_aside(failures):
                broker.adopt(identity, held[0][0], deadline)
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
def connect_all(gather: Sequence[Callable[..., Settings]]) -> Iterator[Targets]:
    """Connect to the Vaults whose settings these functions gather, now and when a login expires.

    Flags that they are called with take precedence over their own.
    """
    farewell = once(lambda: Deadline(REVOKE_TIMEOUT))  # shared, as they are closed one after the other
    with ExitStack() as stack:
        throttles = [Throttle() for _ in gather]
        brokers = [
            stack.enter_context(
                connect(one(), reread=partial(_within, one), bulk=True, throttle=throttle, farewell=farewell)
            )
            for one, throttle in zip(gather, throttles, strict=True)
        ]
        yield Targets(brokers, throttles)
