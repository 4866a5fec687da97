"""Rate limits of the endpoint, by a proxy before it: so many mints a window, everything beyond is refused (429)."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.fault_proxy import FaultProxy


@dataclass
class Bucket:
    """A fixed window of `seconds` that begins with its first request and takes `size` of them."""

    size: int
    seconds: float
    refused: list[float] = field(default_factory=list)  # when (monotonic seconds)
    accepted: int = 0
    _begun: float = -1e9
    _taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def overflows(self, line: str) -> bool:
        """Whether this request is beyond the limit; it is counted."""
        with self._lock:
            now = time.monotonic()
            if now >= self._begun + self.seconds:
                self._begun, self._taken = now, 0
            if self._taken >= self.size:
                self.refused.append(now)
                return True
            self._taken += 1
            self.accepted += 1
            return False


@contextmanager
def limited(
    url: str, size: int, seconds: float, retry_after: int | None = None
) -> Iterator[tuple[str, Bucket]]:
    """The address of such an endpoint, and its bucket."""
    bucket = Bucket(size, seconds)
    with FaultProxy(url) as proxy:
        proxy.answer(bucket.overflows, 429, when="before", times=10**9, retry_after=retry_after)
        yield proxy.address, bucket
