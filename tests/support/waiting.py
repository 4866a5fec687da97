"""Waiting for what another thread or process does, for a bounded time."""

import inspect
import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Return when this is true, which is looked at every 10 ms. Fails the test after so many seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {_shown(condition)}")
        time.sleep(0.01)


def _shown(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
