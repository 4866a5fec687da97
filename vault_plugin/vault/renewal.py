"""Renews the Vault token while a process lives: one that is periodic, or has a TTL that can be extended."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Protocol

from vault_plugin.errors import StoreError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.vault.schema import Lease

FIRST_LOOK = 5.0  # seconds after the start: most processes have ended by then, and send no request for it
RENEW_AFTER = 0.5  # of the TTL
SHORTEST = 0.5  # seconds between two renewals
RETRY_AFTER = 2.0  # seconds after Vault was not available
REQUEST = 10.0  # seconds for a request with its retries
CLOSING = 0.5  # seconds that a request in progress has to finish at the end
IDLE = 3600.0  # seconds; a new token ends the wait
_log = logging.getLogger(__name__)


class Renewable(Protocol):
    """What is renewed: the login to Vault, see auth.Login. Its methods raise StoreError if Vault is not available."""

    on_new_token: Callable[[], object]

    def current(self, deadline: Deadline) -> tuple[str, Lease | None, float] | None: ...
    def looked_up(self, token: str, deadline: Deadline) -> Lease | None: ...
    def extended(self, token: str, deadline: Deadline) -> Lease | None: ...


@contextmanager
def renewing(login: Callable[[], Renewable]) -> Iterator[None]:
    """Renew the token of a login, in a thread, until the block ends. `login` is called at the first look at the token."""
    renewal = _Renewal(login)
    renewal.start()
    try:
        yield
    finally:
        renewal.close()


class _Renewal(threading.Thread):
    def __init__(self, login: Callable[[], Renewable]) -> None:
        super().__init__(name="klearstack-renewal", daemon=True)
        self._login = login
        self._wake = threading.Event()
        self._closing = False
        self._token = ""
        self._due = inf  # when that token is to be renewed (monotonic seconds)

    def close(self) -> None:
        """End the thread; a request in progress may outlive it."""
        self._closing = True
        self._wake.set()
        self.join(CLOSING)

    def run(self) -> None:
        """See threading.Thread."""
        self._wake.wait(FIRST_LOOK)
        while not self._closing:
            self._wake.clear()
            try:
                pause = self._step()
            except StoreError as exc:
                _log.info("the Vault token was not renewed; trying again: %s", exc)
                pause = RETRY_AFTER
            if not self._closing:
                self._wake.wait(pause)

    def _step(self) -> float:
        """Renew the token if that is due; return the seconds until the next look at it. Raises StoreError."""
        login, deadline = self._login(), Deadline(REQUEST)
        login.on_new_token = self._wake.set
        found = login.current(deadline)
        if found is None:
            return IDLE
        token, lease, since = found
        if token != self._token:
            if lease is None:
                since = time.monotonic()
                # A policy may allow one and not the other.
                lease = login.looked_up(token, deadline) or login.extended(token, deadline)
            self._token, self._due = token, _due(lease, since)
        if time.monotonic() >= self._due:
            since = time.monotonic()
            self._due = _due(login.extended(token, deadline), since)
        return min(IDLE, max(0.0, self._due - time.monotonic()))


def _due(lease: Lease | None, since: float) -> float:
    """When a token with this lease is to be renewed; never, if it is not known to be renewable, or does not expire."""
    if lease is None or not (lease.renewable and lease.seconds):
        return inf
    return since + max(SHORTEST, lease.seconds * RENEW_AFTER)
