"""The master's own metrics, as objects that are built once and passed to whoever counts.

The telemetry of the workers is not here: that follows the live table (``metrics.exposition``).
"""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from master.instruments.audit import AuditInstruments
from master.instruments.certificates import CertificateInstruments
from master.instruments.history import HistoryInstruments
from master.instruments.http import HttpInstruments
from master.instruments.hub import FAST_SECONDS, HubCounter, HubHistogram
from master.instruments.stream import StreamInstruments
from master.instruments.tasks import TaskInstruments


class Instruments:
    """Every metric that the master keeps of itself, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        hub_counter = partial(HubCounter, registry=registry)
        hub_histogram = partial(HubHistogram, registry=registry)

        self.heartbeats_received = hub_counter(
            "fleetpulse_heartbeats_received_total", "Heartbeats that the master accepted, over a stream or one by one."
        )
        self.heartbeats_dropped = hub_counter(
            "fleetpulse_heartbeats_dropped_total",
            "Accepted heartbeats that a newer one of the same worker overtook in a full queue.",
        )
        self.heartbeats_rejected = counter(
            "fleetpulse_heartbeats_rejected_total", "Heartbeats that the master refused, by reason.", ["reason"]
        )
        self.heartbeat_receipt_to_visible = hub_histogram(
            "fleetpulse_heartbeat_receipt_to_visible_seconds",
            "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.",
            bounds=FAST_SECONDS,
        )
        self.heartbeat_sent_to_visible = hub_histogram(
            "fleetpulse_heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.",
            bounds=FAST_SECONDS,
        )
        self.update_callback_failures = counter(
            "fleetpulse_update_callback_failures_total", "Exceptions out of the callback that receives every update."
        )
        self.workers = gauge(
            "fleetpulse_workers", "Workers that the master knows, by whether they are active.", ["state"]
        )
        self.sessions = gauge("fleetpulse_worker_sessions", "Streams of workers that are open and registered.")
        self.sessions_refused = counter(
            "fleetpulse_worker_sessions_refused_total",
            "Streams that the master ended with an error, by reason.",
            ["reason"],
        )
        self.grpc_requests = counter(
            "fleetpulse_grpc_requests_total", "Calls that ended, by method and status code.", ["method", "code"]
        )
        self.http_requests = counter(
            "fleetpulse_http_requests_total",
            "Answered requests, by route, method and status.",
            ["route", "method", "status"],
        )
        self.http_request_duration = histogram(
            "fleetpulse_http_request_duration_seconds",
            "Time to make an answer, its sending left out, by route.",
            ["route"],
            buckets=FAST_SECONDS,
        )
        self.exposition_duration = histogram(
            "fleetpulse_exposition_duration_seconds", "Time to put the text of /metrics together.", buckets=FAST_SECONDS
        )
        self.own_samples_left_out = gauge(
            "fleetpulse_own_samples_left_out",
            "Samples of workers' own metrics that /metrics leaves out now, by why.",
            ["reason"],
        )
        self.build_info = gauge(
            "fleetpulse_build_info", "Always 1; the labels say what runs.", ["version", "python_version"]
        )
        self.http = HttpInstruments(registry)
        self.tasks = TaskInstruments(registry)
        self.stream = StreamInstruments(registry)
        self.history = HistoryInstruments(registry)
        self.certificates = CertificateInstruments(registry)
        self.audit = AuditInstruments(registry)
