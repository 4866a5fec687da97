"""The locks of identities at an endpoint and a Vault, whose holders share a failure of the endpoint."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from vault_plugin.errors import OutputError, SourceError
from vault_plugin.failures import error_of, is_shared
from vault_plugin.locks.handle import LockHandle
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.settings import Settings
from vault_plugin.settings.values import ENDPOINT_PATH, issuer
from vault_plugin.timing.deadline import Deadline
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind
from vault_plugin.tokens.place import Place

_log = logging.getLogger(__name__)


class EndpointLock:
    """See broker.ports.LockHandle."""

    def __init__(self, handle: LockHandle, settings: Settings) -> None:
        self.waited = handle.waited
        self._handle = handle
        self._url = settings.url + ENDPOINT_PATH
        self._timeout = settings.timeout
        self._proxy = settings.proxy
        # The settings on which the endpoint's response depends.
        ca_file = settings.ca_cert and str(Path(settings.ca_cert).absolute())
        self._terms = repr((settings.url, ca_file, settings.proxy, settings.timeout))

    def failure(self, deadline: Deadline) -> SourceError | None:
        found = self._handle.failure(self._terms, deadline.began)
        if found is None or not is_shared(found[0], min(self._timeout, deadline.left())):
            return None
        failure, age = found
        return error_of(
            failure._replace(retry_after=max(0.0, failure.retry_after - age)), self._url, self._proxy
        )

    def share_failure(self, exc: SourceError) -> None:
        if exc.failure is not None and is_shared(exc.failure, 0.0):
            self._handle.write_failure(exc.failure, self._terms)

    def clear_failure(self) -> None:
        self._handle.clear_failure()


class EndpointLocks:
    """The lock of each identity at this endpoint and this Vault."""

    def __init__(
        self,
        settings: Settings,
        *,
        hand_over: Callable[[LockHandle], AbstractContextManager[None]],
        checks_and_sets: Callable[[Deadline], bool],
        released: Callable[[], None],
    ) -> None:
        """`hand_over` is entered with each lock, and `released` called after it.

        `checks_and_sets`: whether Vault lets one of several writers win, so that a lock can be done without.
        """
        self._settings = settings
        self._hand_over = hand_over
        self._checks_and_sets = checks_and_sets
        self._released = released
        self._flights = SingleFlight(settings.lock_dir)
        self._warned: set[str] = set()

    @contextmanager
    def lock(self, identity: Identity | Place, deadline: Deadline) -> Iterator[EndpointLock]:
        """See broker.ports.Lock."""
        with self._flights.lock(self._key(identity), deadline) as handle:
            if handle.unlocked:
                self._accept_unlocked(handle.unlocked, deadline)
            try:
                with self._hand_over(handle):
                    yield EndpointLock(handle, self._settings)
            finally:
                self._released()

    def _key(self, identity: Identity | Place) -> str:
        settings = self._settings
        vault = (*sorted(settings.vault_addr), settings.vault_namespace or "", settings.mount)
        return "\n".join((*vault, issuer(settings.url), identity.path(settings.path_prefix, Kind.ACCESS)))

    def _accept_unlocked(self, reason: OutputError, deadline: Deadline) -> None:
        """Go on without a lock where KV v2's check-and-set lets one of several writers win; KV v1 has nothing like it."""
        if not self._checks_and_sets(deadline.half()):
            raise reason
        if str(reason) not in self._warned:
            self._warned.add(str(reason))
            _log.warning("%s Without locks, several processes of this host may mint at the same time", reason)
