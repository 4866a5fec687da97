"""What `watch` knows, for Prometheus.

User id and company name are all it takes to mint a token, and a hash of them is soon reversed: an identity is labelled
by the name that the manifest gives it, or by the line on which it stands.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vault_plugin.bulk.watch import Stats
from vault_plugin.errors import OutputError


class _Stats(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        ends = GaugeMetricFamily(
            "klearstack_vault_token_expiry_timestamp_seconds",
            "Unix time at which an identity's access token expires.",
        )
        for entry, at, _ in self._stats.ends.copy().values():
            label = {"name": entry.name} if entry.name else {"line": str(entry.line)}
            ends.add_sample(ends.name, label, at)
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
