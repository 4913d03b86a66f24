"""The master's own metrics, as objects that are built once and passed to whoever counts.

The telemetry of the workers is not here: that follows the live table (``metrics.exposition``).
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from master.instruments.hub import FAST_SECONDS, HubCounter, HubHistogram
from master.instruments.tasks import TaskInstruments


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
            bounds=FAST_SECONDS,
            registry=registry,
        )
        self.heartbeat_sent_to_visible = HubHistogram(
            "fleetpulse_heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.",
            bounds=FAST_SECONDS,
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
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.exposition_duration = Histogram(
            "fleetpulse_exposition_duration_seconds",
            "Time to put the text of /metrics together.",
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.build_info = Gauge(
            "fleetpulse_build_info",
            "Always 1; the labels say what runs.",
            ["version", "python_version"],
            registry=registry,
        )
        self.tasks = TaskInstruments(registry)
