"""Deadlines: how long a call may take."""

import time
from collections.abc import Callable
from math import inf


class Deadline:
    """A point in time that all parts of one call share; `began` is when the call began (monotonic seconds)."""

    def __init__(
        self,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        began: float | None = None,
        last_try: float = inf,
    ) -> None:
        """`began` and `last_try`, after which nothing is tried again, are in monotonic seconds."""
        now = monotonic()
        self.began = now if began is None else began
        self._monotonic = monotonic
        self._end = now + seconds
        self._last_try = last_try

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())

    def half(self) -> "Deadline":
        """A deadline over half of the time left, so that a failure within it leaves time for a fallback."""
        return self.part(0.5)

    def part(self, share: float) -> "Deadline":
        """A deadline over that share of the time left."""
        return Deadline(self.left() * share, self._monotonic, began=self.began, last_try=self._last_try)

    def patient(self, seconds: float) -> "Deadline":
        """The same end, but nothing is tried again later than that many seconds from now; with 0, not at all."""
        last_try = min(self._last_try, self._monotonic() + seconds)
        return Deadline(self.left(), self._monotonic, began=self.began, last_try=last_try)

    def permits(self, pause: float) -> bool:
        """Whether there may be another try after a pause of that many seconds."""
        then = self._monotonic() + pause
        return then < self._end and then < self._last_try
