"""Whose log messages are dropped, and when."""

import logging
import threading

import pytest

from vault_plugin.network.library_logs import unlogged


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_only_the_libraries_and_only_inside(caplog: pytest.LogCaptureFixture) -> None:
    names = [
        "urllib3",
        "urllib3.connection",
        "requests",
        "hvac.adapters",
        "http.cookiejar",
        "charset_normalizer",
    ]
    libraries = [logging.getLogger(name) for name in names]
    others = [logging.getLogger(name) for name in ("vault_plugin.vault.store", "urllib3x", "theirs", "root")]
    with caplog.at_level(logging.DEBUG):
        with unlogged():
            for logger in libraries + others:
                logger.warning("inside %s", logger.name)
        for logger in libraries:
            logger.warning("after %s", logger.name)
    assert logged(caplog) == [f"inside {one.name}" for one in others] + [
        f"after {one.name}" for one in libraries
    ]


def test_it_ends_with_the_outermost_and_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("urllib3")

    def fail() -> None:
        with unlogged():
            pass
        logger.warning("between")
        raise TimeoutError

    with pytest.raises(TimeoutError), unlogged():
        fail()
    logger.warning("after")
    assert logged(caplog) == ["after"]


def test_a_logger_that_comes_later_is_filtered_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    with unlogged():
        pass
    with unlogged():
        logging.getLogger("urllib3.connection").warning("one")
    logger = logging.getLogger("urllib3.contrib.a_later_one")
    with unlogged():
        logger.warning("another")
    assert logged(caplog) == []


def test_other_threads_log_on(caplog: pytest.LogCaptureFixture) -> None:
    with unlogged():
        thread = threading.Thread(target=logging.getLogger("urllib3").warning, args=("theirs",))
        thread.start()
        thread.join()
    assert logged(caplog) == ["theirs"]
