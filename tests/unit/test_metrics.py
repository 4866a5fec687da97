"""What Prometheus is shown: numbers, and no names."""

import socket
import time
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from vault_plugin import metrics
from vault_plugin.errors import OutputError
from vault_plugin.metrics import _Stats, served
from vault_plugin.watch import Stats


def shown(stats: Stats) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_at_first_there_is_nothing() -> None:
    assert shown(Stats()) == {
        "klearstack_vault_mints_total": 0,
        "klearstack_vault_single_flight_waits_total": 0,
    }


def test_what_is_counted_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    stats = Stats(mints=3, waits=2, ends={"abc": 1090.5, "def": 990.0})
    stats.failures.update(vault_busy=4, endpoint_refused=1)
    assert shown(stats) == {
        'klearstack_vault_token_seconds_to_expiry{identity="abc"}': 90.5,
        'klearstack_vault_token_seconds_to_expiry{identity="def"}': -10,
        'klearstack_vault_failures_total{code="vault_busy"}': 4,
        'klearstack_vault_failures_total{code="endpoint_refused"}': 1,
        "klearstack_vault_mints_total": 3,
        "klearstack_vault_single_flight_waits_total": 2,
    }


def test_what_is_shown_goes_by_what_is_counted_then() -> None:
    stats = Stats()
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    stats.mints = 7
    assert b"klearstack_vault_mints_total 7.0" in generate_latest(registry)


def test_each_metric_has_a_help_text() -> None:
    for family in _Stats(Stats()).collect():
        assert family.documentation.endswith(("has.", "failed.", "endpoint.", "identity."))


def test_an_address_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_args: object, **_kwargs: object) -> NoReturn:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "getaddrinfo", taken)
    with pytest.raises(OutputError, match=r"cannot be served at that address \(Address already in use\)"):
        served(Stats(), "127.0.0.1", 1).__enter__()


class FakeServer:
    """A server, and the thread in which it runs, that only note what is asked of them."""

    server_port = 9999

    def __init__(self) -> None:
        self.asked: list[object] = []

    def start(self, port: int, host: str, registry: CollectorRegistry) -> "tuple[FakeServer, FakeServer]":
        self.asked.append((host, port, b"klearstack_vault_mints_total 5.0" in generate_latest(registry)))
        return self, self

    def shutdown(self) -> None:
        self.asked.append("shutdown")

    def join(self) -> None:
        self.asked.append("join")

    def server_close(self) -> None:
        self.asked.append("close")


def test_metrics_are_served_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    monkeypatch.setattr(metrics, "start_http_server", server.start)
    with served(Stats(mints=5), "h", 1) as port:
        assert (port, server.asked) == (9999, [("h", 1, True)])
    assert server.asked[1:] == ["shutdown", "join", "close"]
