"""`watch` as a service: signals, reloads, and notifications of the service manager."""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import NamedTuple

from vault_plugin import children
from vault_plugin.bulk.systemd import Notifier
from vault_plugin.bulk.targets import Targets, connect_all
from vault_plugin.bulk.watch import Watcher
from vault_plugin.errors import KlearstackVaultError
from vault_plugin.manifest.entries import Entry
from vault_plugin.settings import Settings
from vault_plugin.signals import STOP, handled

TICK = 10.0  # seconds between two notifications, unless systemd's watchdog needs more
SOON = 0.1  # the same until each identity has been tried once
_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What a manifest contains: the functions that gather each target's settings, the identities, and its name."""

    targets: Sequence[Callable[[], Settings]]
    entries: Sequence[Entry]
    name: str = ""


class _LoadEndedError(BaseException):
    """A signal that ends `watch` arrived while it loaded a manifest."""


class _Signals:
    """The signals that have arrived, in their order, and those of them that end `watch`."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[signal.Signals] = SimpleQueue()  # its `put` is safe in a signal handler
        self.ends: list[signal.Signals] = []
        self._loading = False

    def receive(self, number: int, _: object) -> None:
        """Handle a signal. Raises _LoadEndedError in `load`, as Python resumes a read that a handler interrupts."""
        received = signal.Signals(number)
        self.queue.put(received)
        if received != signal.SIGHUP:
            self.ends.append(received)
            if self._loading:
                self._loading = False  # so that no second signal raises it again
                raise _LoadEndedError

    def load(self, load: Callable[[], Plan]) -> Plan | None:
        """Load a manifest; None as soon as a signal has arrived that ends `watch`. Raises what `load` raises."""
        try:
            self._loading = True
            try:
                return None if self.ends else load()
            finally:
                self._loading = False
        except _LoadEndedError:
            return None


def run(
    load: Callable[[], Plan], watcher_of: Callable[[Targets, Sequence[Entry]], Watcher]
) -> signal.Signals:
    """Watch until a signal ends it; return that signal. SIGHUP reloads the manifest.

    Raises what `load` raises at the start; later an invalid manifest is logged, and the previous one remains in use.
    """
    notifier = Notifier()
    with _signals() as signals:
        plan = signals.load(load)
        while plan is not None:
            with (
                connect_all(plan.targets, plan.name) as targets,
                watcher_of(targets, plan.entries) as watcher,
            ):
                plan = _run_plan(load, signals, watcher, notifier)
    return signals.ends[0]


def _run_plan(
    load: Callable[[], Plan], signals: _Signals, watcher: Watcher, notifier: Notifier
) -> Plan | None:
    """Wait for a signal that ends the watcher; return the plan to continue with, if any."""
    while _wait(signals.queue, watcher, notifier) == signal.SIGHUP:
        notifier.reloading()
        try:
            plan = signals.load(load)
        except KlearstackVaultError as exc:
            _log.error("%s The previous manifest remains in use.", exc.line)
        else:
            if plan is None:
                break
            return plan
    notifier.stopping()
    return None


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Receive the signals that arrive inside the block."""
    signals = _Signals()
    with (
        handled(STOP, signals.receive),
        # These are not ignored, even if the parent process ignores them: SIGHUP does not end the watcher, and without
        # SIGCHLD the exit codes of children would be lost.
        handled((signal.SIGHUP,), signals.receive, ignored_too=True),
        handled((signal.SIGCHLD,), lambda *_: children.reap(), ignored_too=True),
    ):
        yield signals


def _wait(signals: "SimpleQueue[signal.Signals]", watcher: Watcher, notifier: Notifier) -> signal.Signals:
    """Wait for the next signal, and notify the service manager meanwhile; its watchdog only if no worker hangs."""
    tick = min(TICK, notifier.watchdog or TICK)
    ready = hanging = False
    while True:
        try:
            return signals.get(timeout=tick if ready else min(SOON, tick))
        except Empty:
            hung, hanging = hanging, watcher.hangs
            notifier.send_status(watcher.status, alive=not hanging)
            if hanging and not hung:
                _log.error("A worker exceeds its deadline; until it finishes, the watchdog is not notified.")
        if not ready and watcher.tried.is_set():
            ready = True
            notifier.ready()
            _log.info("%s", watcher.status)
