"""What `watch` knows, for Prometheus. Identities are named by a hash: their names are all it takes to mint a token."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vault_plugin.errors import OutputError
from vault_plugin.watch import Stats


class _Stats(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        ends = GaugeMetricFamily(
            "klearstack_vault_token_seconds_to_expiry",
            "Seconds until an identity's access token expires; below 0 since when it has.",
            labels=["identity"],
        )
        for name, end in self._stats.ends.copy().items():
            ends.add_metric([name], end - time.monotonic())
        yield ends
        failures = CounterMetricFamily(
            "klearstack_vault_failures", "Tries to keep a token good that failed.", labels=["code"]
        )
        for code, count in self._stats.failures.copy().items():
            failures.add_metric([code], count)
        yield failures
        yield CounterMetricFamily(
            "klearstack_vault_mints", "Tokens minted at KlearStack's endpoint.", value=self._stats.mints
        )
        yield CounterMetricFamily(
            "klearstack_vault_single_flight_waits",
            "Tries that waited for another process at the same identity.",
            value=self._stats.waits,
        )


@contextmanager
def served(stats: Stats, host: str, port: int) -> Iterator[int]:
    """Answer Prometheus at that address; the port (0 takes a free one). Raises OutputError if it is taken."""
    registry = CollectorRegistry()
    registry.register(_Stats(stats))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise OutputError(f"Metrics cannot be served at that address ({exc.strerror}).") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
