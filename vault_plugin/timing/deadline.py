"""How long a call may take."""

import time
from collections.abc import Callable
from math import inf


class Deadline:
    """A point in time that everything belonging to one call shares; `began` is when the call did (monotonic seconds)."""

    def __init__(
        self,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        began: float | None = None,
        last_try: float = inf,
    ) -> None:
        """`began` and `last_try`, after which nothing is repeated, are in monotonic seconds."""
        now = monotonic()
        self.began = now if began is None else began
        self._monotonic = monotonic
        self._end = now + seconds
        self._last_try = last_try

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._monotonic())

    def half(self) -> "Deadline":
        """A deadline over half of what is left: whoever fails within it leaves time for a fallback."""
        return self.part(0.5)

    def part(self, share: float) -> "Deadline":
        """A deadline over that share of what is left."""
        return Deadline(self.left() * share, self._monotonic, began=self.began, last_try=self._last_try)

    def patient(self, seconds: float) -> "Deadline":
        """The same end, but what failed is not repeated later than that many seconds from now; with 0, not at all."""
        last_try = min(self._last_try, self._monotonic() + seconds)
        return Deadline(self.left(), self._monotonic, began=self.began, last_try=last_try)

    def permits(self, pause: float) -> bool:
        """Whether what failed may be repeated after a pause of that many seconds."""
        then = self._monotonic() + pause
        return then < self._end and then < self._last_try
