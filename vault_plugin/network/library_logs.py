"""Drop other libraries' log messages about the requests of this package: they may contain what a server sent.

urllib3, for example, logs each header line that it cannot parse. Requests that the host program itself
sends through the same libraries are logged as before, also in another thread at the same moment.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LIBRARIES = ("charset_normalizer", "http", "hvac", "requests", "urllib3")
_ours: ContextVar[bool] = ContextVar("klearstack_vault_request", default=False)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  it depends on the caller, not on the message
        return not _ours.get()


class _Loggers:
    """The libraries' loggers. Each needs the filter: a logger does not filter the records that its children pass on."""

    def __init__(self) -> None:
        self._filter = _NotOurs()
        self._seen = 0
        self._found: list[logging.Logger] = []

    def add_filter(self) -> None:
        """Add the filter where it is missing: to the loggers of modules loaded since, and where it was removed."""
        known = logging.root.manager.loggerDict
        if len(known) != self._seen:  # no logger is ever removed
            self._seen = len(known)
            self._found = [
                logger
                for name, logger in list(known.items())
                if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LIBRARIES
            ]
        for logger in self._found:
            logger.addFilter(self._filter)


_loggers = _Loggers()


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop what the libraries log in this context."""
    _loggers.add_filter()
    before = _ours.get()
    try:
        _ours.set(True)
        yield
    finally:
        _ours.set(before)
