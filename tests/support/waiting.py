"""Waiting for what another thread or process does, for a bounded time."""

import inspect
import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Return when this is true. Fails the test after so many seconds.

    It is looked at every 10 ms; less often, at least every 50 ms, if looking itself takes long.
    """
    end = (looked := time.monotonic()) + timeout
    while not condition():
        now = time.monotonic()
        if now > end:
            pytest.fail(f"not within {timeout:g} s: {_shown(condition)}")
        time.sleep(min(max(0.01, 3 * (now - looked)), 0.05))
        looked = time.monotonic()


def _shown(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
