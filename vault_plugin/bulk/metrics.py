"""Prometheus metrics of `watch`.

User id and company name suffice to mint a token, and a hash of them can be reversed by trying names: the label of an
identity is its name in the manifest, or its line.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vault_plugin.bulk.stats import Stats
from vault_plugin.errors import OutputError


class _Stats(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        expiries = GaugeMetricFamily(
            "klearstack_vault_token_expiry_timestamp_seconds",
            "Unix time at which an identity's access token expires.",
        )
        for entry, at, _ in self._stats.expiries.copy().values():
            label = {"name": entry.name} if entry.name else {"line": str(entry.line)}
            expiries.add_sample(expiries.name, label, at)
        yield expiries
        failures = CounterMetricFamily(
            "klearstack_vault_failures", "Attempts to keep a token valid that failed.", labels=["code"]
        )
        for code, count in self._stats.failures.copy().items():
            failures.add_metric([code], count)
        yield failures
        yield CounterMetricFamily(
            "klearstack_vault_mints", "Tokens minted at KlearStack's endpoint.", value=self._stats.mints
        )
        yield CounterMetricFamily(
            "klearstack_vault_single_flight_waits",
            "Attempts that waited while another caller processed the same identity.",
            value=self._stats.waits,
        )


@contextmanager
def served(stats: Stats, host: str, port: int) -> Iterator[int]:
    """Expose the metrics at that address; yield the port, of which 0 chooses a free one. Raises OutputError."""
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
