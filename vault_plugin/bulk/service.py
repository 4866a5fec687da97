"""`watch` as a service: signals, reloads, and what the service manager wants to hear."""

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

TICK = 10.0  # seconds between two looks at how things are, unless systemd's watchdog wants more
SOON = 0.1  # the same, until all identities have been tried once
_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What a manifest says: the functions that gather each target's settings, and whose tokens to keep."""

    targets: Sequence[Callable[[], Settings]]
    entries: Sequence[Entry]


def run(
    load: Callable[[], Plan], watcher_of: Callable[[Targets, Sequence[Entry]], Watcher]
) -> signal.Signals:
    """Watch until a signal says that it is enough: that signal. SIGHUP loads the manifest anew.

    Raises what `load` raises at the start; afterwards a manifest that will not do is told of, and the old one stays.
    """
    notifier = Notifier()
    with _signals() as signals:
        plan: Plan | None = load()
        while plan is not None:
            with connect_all(plan.targets) as targets, watcher_of(targets, plan.entries) as watcher:
                plan = None
                while plan is None:
                    asked = _wait(signals, watcher, notifier)
                    if asked != signal.SIGHUP:
                        notifier.stopping()
                        break
                    notifier.reloading()
                    try:
                        plan = load()
                    except KlearstackVaultError as exc:
                        _log.error("%s The old manifest stays in force.", exc)
    return asked


@contextmanager
def _signals() -> Iterator["SimpleQueue[signal.Signals]"]:
    """The signals that come meanwhile, in their order."""
    queue: SimpleQueue[signal.Signals] = SimpleQueue()  # which a handler may put into at any time
    watched = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, lambda number, _: queue.put(signal.Signals(number))) for number in watched
    ]
    # Not ignored, even where our caller did so: the exit codes of our own children would be lost.
    before.append(signal.signal(signal.SIGCHLD, lambda *_: children.reap()))
    try:
        yield queue
    finally:
        for number, handler in zip((*watched, signal.SIGCHLD), before, strict=True):
            signal.signal(number, handler)


def _wait(signals: "SimpleQueue[signal.Signals]", watcher: Watcher, notifier: Notifier) -> signal.Signals:
    """The next signal; until it comes, the service manager hears that all is well, unless a worker hangs."""
    tick = min(TICK, notifier.watchdog or TICK)
    ready = hanging = False
    while True:
        try:
            return signals.get(timeout=tick if ready else min(SOON, tick))
        except Empty:
            hung, hanging = hanging, watcher.hangs
            notifier.tell_status(watcher.status, alive=not hanging)
            if hanging and not hung:
                _log.error("A worker hangs beyond its deadline; the watchdog is not fed meanwhile.")
        if not ready and watcher.tried.is_set():
            ready = True
            notifier.ready()
            _log.info("%s", watcher.status)
