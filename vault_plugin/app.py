"""The composition root: the only place where the parts meet.

hvac and requests are imported when a call gets past the warm read, and not before: importing them takes longer than
reading a stored token. So are the locks.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from vault_plugin.broker import Broker
from vault_plugin.broker.freshness import Freshness
from vault_plugin.broker.inventory import Inventory
from vault_plugin.broker.ports import Lock, LockHandle, TokenReader, TokenSource, TokenStore
from vault_plugin.settings import Settings
from vault_plugin.settings.values import issuer
from vault_plugin.timing.clock import ServerClock, latest, warn_of_skew
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.place import Place
from vault_plugin.vault.reader import WarmReader
from vault_plugin.vault.renewal import renewing
from vault_plugin.vault.transport import Transport

# Seconds for revoking a login at the end, which would expire by itself. No deadline has more left.
REVOKE_TIMEOUT = 0.5
T = TypeVar("T")
_log = logging.getLogger(__name__)


@contextmanager
def connect(
    settings: Settings,
    *,
    reread: Callable[[Deadline], Settings] | None = None,
    bulk: bool = False,
    limiter: AdaptiveRateLimiter | None = None,
    manifest: str = "",
    closing_deadline: Callable[[], Deadline] = lambda: Deadline(REVOKE_TIMEOUT),
) -> Iterator[Broker]:
    """Make a broker over the endpoint and the Vault that the settings name; nothing is contacted before its first use.

    `reread` reads the settings again, until a deadline, when the login to Vault ends, for callers that live longer than a
    login; it may raise SettingsError. `bulk` is for many identities: no warm reader, and no wait for a busy endpoint by
    one worker alone. `limiter` learns what this Vault accepts. What is stored belongs to the `manifest` of that name.
    `closing_deadline` starts the time for revoking the login.
    """
    with ExitStack() as closing:
        parts = _Parts(settings, closing, bulk=bulk, limiter=limiter, manifest=manifest)
        client = once(lambda: parts.make_client(reread or (lambda _: settings), closing_deadline))
        store = once(lambda: parts.make_store(client()))
        if settings.auth != "none":
            closing.enter_context(renewing(lambda: client().login))
        locks = once(lambda: parts.make_locks(store))

        def lock(identity: Identity | Place, deadline: Deadline) -> AbstractContextManager[LockHandle]:
            held: AbstractContextManager[LockHandle] = locks().lock(identity, deadline)
            return held

        yield Broker(
            reader=None if bulk else parts.make_reader(),
            store=store,
            source=once(parts.make_source),
            lock=lock,
            freshness=parts.make_freshness(),
            deadline=settings.deadline,
            bypass=settings.on_vault_error == "bypass",
            inventory=parts.make_inventory(store, lock),
        )


@contextmanager
def parts_of(settings: Settings) -> Iterator["_Parts"]:
    """The parts that `connect` makes a broker of, for `doctor`, which looks at each of them alone."""
    with ExitStack() as closing:
        yield _Parts(settings, closing, bulk=False, limiter=None, manifest="")


class _Parts:
    """The parts of one broker, each made when it is needed first; `closing` closes them."""

    def __init__(
        self,
        settings: Settings,
        closing: ExitStack,
        *,
        bulk: bool,
        limiter: AdaptiveRateLimiter | None,
        manifest: str,
    ) -> None:
        self.vault_clock, self.endpoint_clock = ServerClock(), ServerClock()
        self.transport = Transport(
            settings.vault_addr,
            self.vault_clock,
            timeout=settings.vault_timeout or settings.timeout,
            ca_file=settings.vault_cacert,
            ca_text=settings.vault_cacert_bytes,
            ca_folder=settings.vault_capath,
            server_name=settings.vault_tls_server_name,
            client_cert=settings.vault_client_cert,
            client_key=settings.vault_client_key,
            proxy=settings.vault_proxy,
            max_retries=settings.vault_max_retries,
            rate_limit=settings.vault_rate_limit,
            limiter=limiter,
        )
        closing.callback(self.transport.close)
        self._settings = settings
        self._closing = closing
        self._bulk = bulk
        self._manifest = manifest
        self._accept_other_users = settings.on_user_mismatch == "warn"
        self._kv_version = int(settings.kv_version) if settings.kv_version else None

    def now(self) -> float:
        """Unix seconds by the latest of the servers' clocks."""
        return latest(self.vault_clock, self.endpoint_clock)

    def make_freshness(self) -> Freshness:
        """Make what judges stored tokens."""
        return Freshness(
            now=self.now,
            vault_now=self.vault_clock.now,
            endpoint=issuer(self._settings.url),
            min_ttl=self._settings.min_ttl,
        )

    def make_reader(self) -> TokenReader | None:
        """Make the warm reader; None where there is no Vault token yet, since only the store logs in."""
        settings = self._settings
        token = settings.vault_token if settings.auth == "token" else None
        if token is None and settings.auth != "none":
            return None
        return WarmReader(
            self.transport,
            token,
            settings.vault_namespace,
            settings.mount,
            settings.path_prefix,
            accept_other_users=self._accept_other_users,
            version=self._kv_version,
        )

    def make_client(
        self, reread: Callable[[Deadline], Settings], closing_deadline: Callable[[], Deadline]
    ) -> Any:
        """Make the VaultClient, whose class is not loaded yet; for `reread` and `closing_deadline` see `connect`."""
        from vault_plugin.vault.client import VaultClient  # noqa: PLC0415  hvac, requests

        client = VaultClient(self.transport, self._settings, reread)
        self._closing.callback(lambda: client.close(closing_deadline()))
        return client

    def make_store(self, client: Any) -> TokenStore:
        """Make the store over the VaultClient."""
        from vault_plugin.vault.store import VaultStore  # noqa: PLC0415  hvac, requests

        return VaultStore(
            client,
            self.vault_clock,
            self._settings.mount,
            self._settings.path_prefix,
            latest=self.now,
            accept_other_users=self._accept_other_users,
            version=self._kv_version,
            manifest=self._manifest,
        )

    def make_locks(self, store: Callable[[], TokenStore]) -> Any:
        """Make the locks of all identities, whose class is not loaded yet."""
        from vault_plugin.locks.endpoint_lock import EndpointLocks  # noqa: PLC0415  a stored token does without
        from vault_plugin.vault.consistency_index import handed_over  # noqa: PLC0415

        return EndpointLocks(
            self._settings,
            hand_over=lambda handle: handed_over(self.transport, handle),
            checks_and_sets=lambda deadline: store().checks_and_sets(deadline),
            released=lambda: warn_of_skew(self.vault_clock, self.endpoint_clock),
        )

    def make_inventory(self, store: Callable[[], TokenStore], lock: Lock) -> Inventory:
        """Make what lists and deletes stored tokens."""
        settings = self._settings
        return Inventory(
            store,
            lock,
            deadline=settings.deadline,
            address=",".join(settings.vault_addr),
            mount=settings.mount,
            prefix=settings.path_prefix,
        )

    def make_source(self) -> TokenSource:
        """Make the endpoint's client."""
        from vault_plugin.endpoint.client import EndpointSource  # noqa: PLC0415  requests

        source = EndpointSource(
            self._settings.url,
            self.endpoint_clock,
            timeout=self._settings.timeout,
            ca_file=self._settings.ca_cert,
            proxy=self._settings.proxy,
            latest=self.now,
            accept_other_users=self._accept_other_users,
            waits_when_busy=not self._bulk,  # there all workers wait together
        )
        self._closing.callback(source.close)
        return source


def policy_of(
    role: str, version: str | None, mount: str, prefix: str, namespace: str | None, of_login: str | None
) -> str:
    """The policy (HCL) that a role needs, by these settings: in a KV v2 mount unless they say otherwise."""
    from vault_plugin.vault.policy import hcl, mount_in  # noqa: PLC0415  no other command needs it

    place = mount_in(mount, namespace, namespace if of_login is None else of_login)
    return hcl(role, int(version or 2), place, prefix)


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls `make` the first time, and returns that result to all threads from then on."""
    lock = threading.Lock()
    made: list[T] = []

    def get() -> T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get
