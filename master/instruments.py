"""The master's own metrics, as objects that are built once and passed to whoever counts.

Those that every heartbeat touches are plain numbers: prometheus_client's take a lock and some microseconds each, which
is for threads, and the heartbeat path is one greenlet at a time.

They live below the services and the adapters, so that neither needs to know who exposes them. The telemetry of the
workers is not here: that follows the live table (``metrics.exposition``).
"""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.registry import Collector

_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class HubCounter(Collector):
    """A counter for code that runs on the hub only."""

    __slots__ = ("_documentation", "_name", "value")

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self.value = 0
        registry.register(self)

    def inc(self) -> None:
        self.value += 1

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self.value)


class HubHistogram(Collector):
    """A histogram for code that runs on the hub only."""

    __slots__ = ("_bounds", "_counts", "_documentation", "_name", "_sum")

    def __init__(self, name: str, documentation: str, bounds: tuple[float, ...], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        # A bucket holds what is less than or equal to its bound.
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append((str(bound).replace("inf", "+Inf"), total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class Instruments:
    """Every metric that the master keeps of itself, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        self.heartbeats_received = HubCounter(
            "fleetpulse_heartbeats_received_total",
            "Heartbeats that the master accepted, over a stream or one by one.",
            registry=registry,
        )
        self.heartbeats_dropped = HubCounter(
            "fleetpulse_heartbeats_dropped_total",
            "Accepted heartbeats that a newer one of the same worker overtook in a full queue.",
            registry=registry,
        )
        self.heartbeats_rejected = Counter(
            "fleetpulse_heartbeats_rejected_total",
            "Heartbeats that the master refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.heartbeat_receipt_to_visible = HubHistogram(
            "fleetpulse_heartbeat_receipt_to_visible_seconds",
            "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.",
            bounds=_FAST_SECONDS,
            registry=registry,
        )
        self.heartbeat_sent_to_visible = HubHistogram(
            "fleetpulse_heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.",
            bounds=_FAST_SECONDS,
            registry=registry,
        )
        self.update_callback_failures = Counter(
            "fleetpulse_update_callback_failures_total",
            "Exceptions out of the callback that receives every update.",
            registry=registry,
        )
        self.workers = Gauge(
            "fleetpulse_workers",
            "Workers that the master knows, by whether they are active.",
            ["state"],
            registry=registry,
        )
        self.sessions = Gauge(
            "fleetpulse_worker_sessions",
            "Streams of workers that are open and registered.",
            registry=registry,
        )
        self.sessions_refused = Counter(
            "fleetpulse_worker_sessions_refused_total",
            "Streams that the master ended with an error, by reason.",
            ["reason"],
            registry=registry,
        )
        self.grpc_requests = Counter(
            "fleetpulse_grpc_requests_total",
            "Calls that ended, by method and status code.",
            ["method", "code"],
            registry=registry,
        )
        self.http_requests = Counter(
            "fleetpulse_http_requests_total",
            "Answered requests, by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.http_request_duration = Histogram(
            "fleetpulse_http_request_duration_seconds",
            "Time to make an answer, its sending left out, by route.",
            ["route"],
            buckets=_FAST_SECONDS,
            registry=registry,
        )
        self.exposition_duration = Histogram(
            "fleetpulse_exposition_duration_seconds",
            "Time to put the text of /metrics together.",
            buckets=_FAST_SECONDS,
            registry=registry,
        )
        self.build_info = Gauge(
            "fleetpulse_build_info",
            "Always 1; the labels say what runs.",
            ["version", "python_version"],
            registry=registry,
        )
