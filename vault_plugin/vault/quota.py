"""Waiting for what Vault's rate limit quota, and the rate limit of the settings, permit."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vault_plugin.errors import StoreBusyError
from vault_plugin.timing.deadline import Deadline
from vault_plugin.timing.rate_limiter import AdaptiveRateLimiter
from vault_plugin.vault.retries import OWN_LIMIT, QUOTA, with_status

_log = logging.getLogger(__name__)


class Quota:
    """How many requests one Vault accepts. Safe among threads."""

    def __init__(
        self, limiter: AdaptiveRateLimiter, node: Callable[[], str], sleep: Callable[[float], None]
    ) -> None:
        """`node` names the server that the next request goes to, for errors."""
        self._limiter = limiter
        self._node = node
        self._sleep = sleep
        self._local = threading.local()

    @contextmanager
    def mint(self, deadline: Deadline) -> Iterator[None]:
        """Wait until Vault accepts enough requests to store one more pair of new tokens, as the block does.

        Raises StoreBusyError if that is not before the deadline.
        """
        with self._limiter.mint(deadline.left) as admitted:
            if not admitted:
                raise self._error()
            yield

    @property
    def is_throttled(self) -> bool:
        """Whether Vault rejected the newest request because of a rate limit quota."""
        return self._limiter.refusing

    @property
    def gap(self) -> float:
        """Seconds that the rate limit quota leaves between two requests of a thread that belong together."""
        return self._limiter.gap

    def reserve(self, requests: int, deadline: Deadline) -> None:
        """Wait now for the next requests of this thread, so that none of them waits for the quota later.

        Where Vault accepts too few for that, each of them waits. Raises StoreBusyError if the deadline is too early.
        """
        self._local.reserved = 0
        if not self._limiter.gap:
            self.wait(deadline, requests)
            self._local.reserved = requests

    def wait(self, deadline: Deadline, requests: int = 1) -> None:
        """Wait until requests may be sent. Raises StoreBusyError if that is not before the deadline."""
        reserved: int = getattr(self._local, "reserved", 0)
        if reserved:
            self._local.reserved = reserved - 1
            if self._limiter.stands(time.monotonic()):
                return
        while True:
            start = self._limiter.reserve(requests)
            wait = start - time.monotonic()
            if wait > 0:
                if wait >= deadline.left():
                    raise self._error()
                _log.debug("Vault's rate limit quota: the next request is sent in %.2f s", wait)
                self._sleep(wait)
            if self._limiter.stands(start):
                return

    def _error(self) -> StoreBusyError:
        verdict = with_status(QUOTA, 429) if self._limiter.refusing else OWN_LIMIT
        return StoreBusyError(
            f"The request to Vault at {self._node()} failed: {verdict.reason}.", hint=verdict.hint
        )
