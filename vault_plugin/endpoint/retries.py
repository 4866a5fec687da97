"""Which failed requests to the endpoint are sent again, when, and for how long."""

from math import inf

from vault_plugin.errors import Failure, SourceError
from vault_plugin.timing.backoff import full_jitter
from vault_plugin.timing.deadline import Deadline

# Seconds after which no further request is sent.
RETRY_FOR = 10.0
RETRY_FOR_WITH_FALLBACK = 3.5  # where a stored token can be used instead
RETRY_REFUSED_FOR = 3.0  # where the connection is refused
REFUSED_BACKOFF = 1.0  # seconds, the longest pause where the connection is refused
TRIES = 4  # at most, with a fallback, or where the endpoint says how long to wait
NAME_TRIES = 2  # at most, where the name does not resolve


class Retries:
    """The retries of one call. `fallback`: the caller has a stored token to use instead."""

    def __init__(self, deadline: Deadline, *, fallback: bool) -> None:
        self._deadline = deadline
        self._fallback = fallback
        self._limit = deadline.patient(RETRY_FOR_WITH_FALLBACK if fallback else RETRY_FOR)
        self._refused_limit = deadline.patient(RETRY_REFUSED_FOR)
        self._tries = 0
        self._pauses = full_jitter(0.5, 8.0)

    def pause(self, exc: SourceError) -> float | None:
        """Seconds to wait before the next try, after one that failed in this way; None if there is none."""
        self._tries += 1
        failure = exc.failure
        if failure is None or not exc.retryable or self._tries >= self._most(failure):
            return None
        pause, limit = max(next(self._pauses), failure.retry_after), self._limit
        if failure.cause in {"refused", "proxy_refused"}:
            pause, limit = min(pause, REFUSED_BACKOFF), self._refused_limit
        elif failure.cause == "busy" and failure.retry_after and not self._fallback:
            limit = self._deadline  # the endpoint has said when to try again
        return pause if limit.permits(pause) else None

    def _most(self, failure: Failure) -> float:
        if failure.cause in {"name", "proxy_name"}:
            return NAME_TRIES
        is_timed = failure.cause == "busy" and failure.retry_after
        return TRIES if is_timed or self._fallback else inf
