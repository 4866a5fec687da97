"""The composition root: the only place where the parts meet.

hvac and requests are imported when a call gets past the warm read, and not before: they take longer to load than a
stored token takes to be read.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from vault_plugin.broker import Broker, TokenReader, TokenSource, TokenStore
from vault_plugin.errors import OutputError, SourceError
from vault_plugin.failures import error_of, is_shared
from vault_plugin.settings import Settings
from vault_plugin.settings.values import ENDPOINT_PATH, issuer
from vault_plugin.singleflight import SingleFlight, Turn
from vault_plugin.timing.clock import ServerClock, latest
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.throttle import Throttle
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.vault.reader import WarmReader
from vault_plugin.vault.transport import Transport

MAX_SKEW = 5.0  # seconds; `Date` headers alone leave up to 2 s open
REVOKE_TIMEOUT = (
    0.5  # seconds for revoking a login at the end, which would end by itself; no deadline has more left
)
T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Turn:
    """What the broker may learn and tell while it is alone with an identity."""

    def __init__(self, turn: Turn, settings: Settings) -> None:
        self.waited = turn.waited
        self._turn = turn
        self._url = settings.url + ENDPOINT_PATH
        self._timeout = settings.timeout
        # On what it depends how the endpoint responds. There is no proxy: none is ever used.
        ca_file = settings.ca_cert and str(Path(settings.ca_cert).absolute())
        self._terms = repr((settings.url, ca_file, settings.timeout))

    def failure(self, deadline: Deadline) -> SourceError | None:
        """See broker.Turn."""
        found = self._turn.failure(self._terms, deadline.began)
        if found is None or not is_shared(found[0], min(self._timeout, deadline.left())):
            return None
        failure, ago = found
        return error_of(failure._replace(retry_after=max(0.0, failure.retry_after - ago)), self._url)

    def failed(self, exc: SourceError) -> None:
        """See broker.Turn."""
        if exc.failure is not None and is_shared(exc.failure, 0.0):
            self._turn.leave_failure(exc.failure, self._terms)

    def responded(self) -> None:
        """See broker.Turn."""
        self._turn.forget_failure()


@contextmanager
def connect(
    settings: Settings,
    *,
    reread: Callable[[Deadline], Settings] | None = None,
    bulk: bool = False,
    throttle: Throttle | None = None,
    farewell: Callable[[], Deadline] = lambda: Deadline(REVOKE_TIMEOUT),
) -> Iterator[Broker]:
    """A broker over the endpoint and the Vault that the settings name; nothing is contacted before its first use.

    `reread` gathers them anew, until a deadline, when Vault ends our login, for whoever lives longer than a login; it
    may raise SettingsError. `bulk` is for many identities: what is loaded once, and asked before all of them, pays then.
    `throttle` learns what this Vault accepts. `farewell` is the deadline for closing.
    """
    vault_clock, endpoint_clock = ServerClock(), ServerClock()
    endpoint = issuer(settings.url)
    accept_other_users = settings.on_user_mismatch == "warn"

    def now() -> float:
        return latest(vault_clock, endpoint_clock)

    transport = Transport(
        settings.vault_addr,
        vault_clock,
        timeout=settings.timeout,
        ca_file=settings.vault_cacert,
        client_cert=settings.vault_client_cert,
        client_key=settings.vault_client_key,
        throttle=throttle,
    )
    with ExitStack() as closing:
        closing.callback(transport.close)

        def make_store() -> TokenStore:
            from vault_plugin.vault.client import VaultClient  # noqa: PLC0415  hvac, requests
            from vault_plugin.vault.store import VaultStore  # noqa: PLC0415  hvac, requests

            client = VaultClient(transport, settings, reread or (lambda _: settings))
            closing.callback(lambda: client.close(farewell()))
            return VaultStore(
                client,
                vault_clock,
                settings.mount,
                settings.path_prefix,
                latest=now,
                accept_other_users=accept_other_users,
            )

        def make_source() -> TokenSource:
            from vault_plugin.endpoint.client import EndpointSource  # noqa: PLC0415  requests

            source = EndpointSource(
                settings.url,
                endpoint_clock,
                timeout=settings.timeout,
                ca_file=settings.ca_cert,
                latest=now,
                accept_other_users=accept_other_users,
                waits_when_busy=not bulk,  # there all workers wait, not this one alone
            )
            closing.callback(source.close)
            return source

        @cache
        def warn(reason: str) -> None:
            _log.warning("%s Without locks, several processes of this host may mint at the same time", reason)

        def accept_unlocked(reason: OutputError, deadline: Deadline) -> None:
            """KV v2's check-and-set lets one of several writers win; KV v1 has nothing like it."""
            if not store().checks_and_sets(deadline.half()):
                raise reason
            warn(str(reason))

        @contextmanager
        def flight(identity: Identity, deadline: Deadline) -> Iterator[_Turn]:
            where = (*sorted(settings.vault_addr), settings.vault_namespace or "", settings.mount)
            key = "\n".join((*where, endpoint, identity.path(settings.path_prefix, Kind.ACCESS)))
            with flights.turn(key, deadline) as turn:
                if turn.unlocked:
                    accept_unlocked(turn.unlocked, deadline)
                transport.index = turn.memo or transport.index
                try:
                    yield _Turn(turn, settings)
                finally:
                    if transport.index != turn.memo:  # none any more: Vault could not read it
                        turn.leave(transport.index or "")
                    tell_skew(vault_clock, endpoint_clock)

        flights = SingleFlight(settings.lock_dir)
        store = once(make_store)
        yield Broker(
            reader=None if bulk else _reader(settings, transport),
            store=store,
            source=once(make_source),
            flight=flight,
            now=now,
            vault_now=vault_clock.now,
            endpoint=endpoint,
            min_ttl=settings.min_ttl,
            deadline=settings.deadline,
            bypass=settings.on_vault_error == "bypass",
        )


def _reader(settings: Settings, transport: Transport) -> TokenReader | None:
    """None where there is no Vault token yet to read with: to log in is the store's business."""
    if settings.auth != "token" or settings.vault_token is None:
        return None
    return WarmReader(
        transport,
        settings.vault_token,
        settings.vault_namespace,
        settings.mount,
        settings.path_prefix,
        accept_other_users=settings.on_user_mismatch == "warn",
    )


def once(make: Callable[[], T]) -> Callable[[], T]:
    """A function that makes it at the first call, for all threads the same."""
    lock = threading.Lock()
    made: list[T] = []

    def get() -> T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get


def tell_skew(vault_clock: ServerClock, endpoint_clock: ServerClock) -> None:
    """Warn if the two servers' clocks, as far as they have been measured, are more than MAX_SKEW apart."""
    if not (vault_clock.measured and endpoint_clock.measured):
        return
    skew = vault_clock.now() - endpoint_clock.now()
    if abs(skew) > MAX_SKEW:
        how, then = (
            ("ahead of", "tokens are deleted too early by that much")
            if skew > 0
            else ("behind", "the life of tokens is counted from when they are stored")
        )
        _log.warning("Vault's clock is %.0f s %s the endpoint's: %s", abs(skew), how, then)
