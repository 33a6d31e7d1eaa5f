"""Numbers of the service in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from athwe_core.serving.service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PATHS = frozenset({"/", "/recommend", "/similar", "/health", "/metrics", "/docs", "/try/recommendations"})
"""Counted by name; all others are `other`."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts requests, and shows what the service counts.

    Args:
        service: its queue, batches and runs are shown.
    """

    def __init__(self, service: Service) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_OfService(service))
        self._requests = Counter(
            "athwe_http_requests", "Requests answered.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "athwe_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._reloads = Counter(
            "athwe_reloads", "Newer runs looked for and found.", ("result",), registry=self._registry
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; status 0 = the client went away before its answer."""
        name = path if path in PATHS else "other"
        self._requests.labels(name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def reload(self, result: str) -> None:
        """Count a reload: `loaded` or `failed`."""
        self._reloads.labels(result).inc()

    def text(self) -> bytes:
        """All numbers."""
        return generate_latest(self._registry)


class _OfService(Collector):
    """What the service counts itself, read when the numbers are wanted."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The families of numbers."""
        counts = self._service.batcher.counts
        histories = CounterMetricFamily(
            "athwe_histories", "Histories and items of /similar, by what became of them.", labels=["result"]
        )
        for result in ("answered", "refused", "expired", "failed"):
            histories.add_metric([result], getattr(counts, result))
        yield histories
        yield CounterMetricFamily("athwe_batches", "Batches computed.", value=counts.batches)
        yield CounterMetricFamily(
            "athwe_busy_seconds", "Time in which batches were computed.", value=counts.busy_seconds
        )
        waiting = self._service.batcher.num_waiting
        yield GaugeMetricFamily("athwe_waiting", "Histories and items in the queue.", value=waiting)
        runs = GaugeMetricFamily("athwe_run", "1 for each run that is served.", labels=["run"])
        for name in self._service.served.names:
            runs.add_metric([name], 1)
        yield runs
