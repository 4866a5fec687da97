"""Backoff: how long to wait before the next try."""

import random
import time
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 3600.0  # seconds; a longer one may be a wrong unit, such as a date in milliseconds


def full_jitter(base: float, cap: float) -> Iterator[float]:
    """Seconds to wait before each further try: anything up to a bound that doubles from `base` to `cap`.

    "Full jitter" spreads callers that failed at the same time, so that they do not try again at the same time.
    """
    bound = base
    while True:
        yield random.uniform(0, bound)  # noqa: S311  no secret depends on it
        bound = min(cap, bound * 2)


def retry_after(header: str | None, date: str | None = None) -> float:
    """Seconds to wait by a `Retry-After` header, which is a number or an HTTP date; 0 if it is neither.

    At most MAX_RETRY_AFTER: a caller that obeys a longer one would not notice that the server responds again. A date
    counts from the `Date` header of the same response, if there is one: by the server's clock.
    """
    if header is None:
        return 0.0
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER)
    then, now = _instant(header), _instant(date or "")
    if then is None:
        return 0.0
    return min(max(0.0, then - (time.time() if now is None else now)), MAX_RETRY_AFTER)


def _instant(header: str) -> float | None:
    """Unix seconds of an HTTP date."""
    try:
        moment = parsedate_to_datetime(header)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
