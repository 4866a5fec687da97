"""Locks of `singleflight`, as tests look at them."""

from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from vault_plugin.errors import BusyError, OutputError
from vault_plugin.locks.singleflight import SingleFlight
from vault_plugin.timing.deadline import Deadline

PATIENCE = 30  # seconds that a real wait may take before the test has failed


def is_busy(folder: Path, key: str) -> bool:
    try:
        with SingleFlight(str(folder)).lock(key, Deadline(0)):
            return False
    except BusyError:
        return True


def lock_file(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:3]


def neighbour(key: str) -> str:
    """Another key that lies in the same file."""
    return next(other for n in count() if lock_file(other := f"other {n}") == lock_file(key))


def refused(folder: Path) -> str:
    """The message with which no lock can be had in this folder."""
    with pytest.raises(OutputError) as caught, SingleFlight(str(folder)).lock("key", Deadline(0)):
        pytest.fail("a lock was acquired")
    assert "KLEARSTACK_LOCK_DIR" in caught.value.hint
    return str(caught.value)
