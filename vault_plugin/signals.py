"""Signal handlers for the duration of a `with` block, as commands, temporary files and child processes use them."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # the signals that ask a process to end


@contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], object], *, ignored_too: bool = False
) -> Iterator[None]:
    """Handle these signals by `handler` inside the block, and restore the previous handlers after it.

    A signal that is ignored stays ignored, as nohup and the background jobs of a shell want it, unless `ignored_too`.
    For the main thread only, as Python requires: raises ValueError in another one.
    """
    previous: dict[int, Any] = {}
    try:
        for number in numbers:
            if ignored_too or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the signals of STOP that arrive inside the block take effect after it. Does nothing outside of the main thread.

    For the start of a process: what a handler raises inside of Popen would leave it running, and nobody would know it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    arrived: dict[int, object] = {}
    try:
        with handled(STOP if is_main else (), arrived.setdefault):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)
