"""The master's own metrics, as objects that are built once and passed to the code that counts.

They live below the services and the adapters, so that neither needs to know who exposes them. The telemetry of the
workers is not here: that follows the live table (``metrics.exposition``).
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, disable_created_metrics
from prometheus_client.gc_collector import GCCollector

from fleetpulse.master.instruments.collectors import HubCounter, HubHistogram, ProcessMetrics

# A series more for each counter and histogram, which says since when it counts: process_start_time_seconds does.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types

FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_WAIT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_RUN_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)

QUEUE_FULL = "queue_full"
WRITE_FAILED = "write_failed"

STREAM_EVENTS = ("reset", "snapshot", "update", "removed", "problem")

REJECT_REASONS = (
    "answer_not_taken",
    "body_too_large",
    "client_connections",
    "client_readers",
    "client_requests",
    "connections",
    "head_too_large",
    "idle",
    "json_too_deep",
    "line_too_long",
    "malformed",
    "readers",
    "slow_body",
    "slow_head",
    "tls_handshake",
)
"""Every reason for which something is refused or cut; ``docs/security.md`` says of each when."""


class Instruments:
    """Every metric that the master keeps of itself, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessMetrics(registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.telemetry = TelemetryInstruments(registry)
        self.rpc = RpcInstruments(registry)
        self.http = HttpInstruments(registry)
        self.exposition = ExpositionInstruments(registry)
        self.build_info = _Factory(registry).gauge(
            "fleetpulse_build_info", "Always 1; the labels say what runs.", "version", "python_version"
        )
        self.tasks = TaskInstruments(registry)
        self.store = StoreInstruments(registry)
        self.stream = StreamInstruments(registry)
        self.history = HistoryInstruments(registry)
        self.certificates = CertificateInstruments(registry)
        self.audit = AuditInstruments(registry)


class _Factory:
    """Makes instruments in a registry. A counter has a series for each of ``values`` of its label from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str, values: Sequence[str] = ()) -> Counter:
        counter = Counter(name, text, labels, registry=self._registry)
        for value in values:
            counter.labels(value)
        return counter

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = FAST_SECONDS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)


class TelemetryInstruments:
    """Of heartbeats, and of the live table."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.heartbeats_received = HubCounter(
            "fleetpulse_heartbeats_received_total",
            "Heartbeats that the master accepted, over a stream or one by one.",
            registry,
        )
        self.heartbeats_dropped = HubCounter(
            "fleetpulse_heartbeats_dropped_total",
            "Accepted heartbeats that a newer one of the same worker overtook in a full queue.",
            registry,
        )
        self.heartbeats_rejected = new.counter(
            "fleetpulse_heartbeats_rejected_total", "Heartbeats that the master refused, by reason.", "reason"
        )
        self.receipt_to_visible = HubHistogram(
            "fleetpulse_heartbeat_receipt_to_visible_seconds",
            "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.",
            FAST_SECONDS,
            registry,
        )
        self.sent_to_visible = HubHistogram(
            "fleetpulse_heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.",
            FAST_SECONDS,
            registry,
        )
        self.callback_failures = new.counter(
            "fleetpulse_update_callback_failures_total", "Exceptions out of the callback that receives every update."
        )
        self.workers = new.gauge(
            "fleetpulse_workers", "Workers that the master knows, by whether they are active.", "state"
        )


class RpcInstruments:
    """Of calls and streams of gRPC."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.sessions = new.gauge("fleetpulse_worker_sessions", "Streams of workers that are open and registered.")
        self.sessions_refused = new.counter(
            "fleetpulse_worker_sessions_refused_total",
            "Streams that the master ended with an error, by reason.",
            "reason",
        )
        self.requests = new.counter(
            "fleetpulse_grpc_requests_total", "Calls that ended, by method and status code.", "method", "code"
        )


class HttpInstruments:
    """Of requests and connections of HTTP clients."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.requests = new.counter(
            "fleetpulse_http_requests_total",
            "Answered requests, by route, method and status.",
            "route",
            "method",
            "status",
        )
        self.request_duration = new.histogram(
            "fleetpulse_http_request_duration_seconds",
            "Time to make an answer, its sending left out, by route.",
            "route",
        )
        self.connections = new.gauge("fleetpulse_http_connections", "Connections of HTTP clients that are open.")
        self.rejected = new.counter(
            "fleetpulse_http_rejected_total",
            "Requests that were refused and connections that were cut because of a limit, by reason.",
            "reason",
        )
        self._by_reason = {reason: self.rejected.labels(reason) for reason in REJECT_REASONS}

    def reject(self, reason: str) -> None:
        """Count one. ``reason`` is one of ``REJECT_REASONS``."""
        self._by_reason[reason].inc()


class ExpositionInstruments:
    """Of /metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.duration = new.histogram(
            "fleetpulse_exposition_duration_seconds", "Time to put the text of /metrics together."
        )
        self.custom_samples_dropped = new.gauge(
            "fleetpulse_custom_samples_dropped",
            "Samples of workers' custom metrics that /metrics leaves out now, by reason.",
            "reason",
        )


class TaskInstruments:
    """Of tasks and their placement."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.tasks = new.gauge("fleetpulse_tasks", "Tasks in the store, by status.", "status")
        self.finished = new.counter(
            "fleetpulse_tasks_finished_total",
            "Tasks that ended, by how.",
            "status",
            values=("completed", "failed", "cancelled"),
        )
        self.queue_wait = new.histogram(
            "fleetpulse_task_queue_wait_seconds",
            "Time from when a task could have been placed until it was.",
            buckets=_WAIT_SECONDS,
        )
        self.run_time = new.histogram(
            "fleetpulse_task_run_seconds", "Time from when a container ran until it had ended.", buckets=_RUN_SECONDS
        )
        self.oldest_queued = new.gauge(
            "fleetpulse_task_oldest_queued_seconds",
            "Age of the oldest task that waits for a place; 0 when none does.",
        )
        self.attempts_ended = new.counter(
            "fleetpulse_task_attempts_ended_total",
            "Attempts that ended, by how and why; the reasons of Docker are among them.",
            "status",
            "reason",
        )
        self.reports_stale = new.counter(
            "fleetpulse_task_reports_stale_total",
            "Reports and logs that workers sent about attempts that were not theirs, or not any more.",
        )
        self.reports_foreign = new.counter(
            "fleetpulse_task_reports_foreign_total",
            "Reports, logs and claims to hold an attempt that was never the worker's; the audit trail has them.",
        )
        self.rescheduling_held = new.gauge(
            "fleetpulse_task_rescheduling_held",
            "1 while attempts of lost workers are not given up, because much of the fleet is gone at once.",
        )
        self.scheduling_round = new.histogram(
            "fleetpulse_task_scheduling_round_seconds", "Time of one round in which waiting tasks were given places."
        )


class StoreInstruments:
    """Of the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.commit = new.histogram(
            "fleetpulse_store_commit_seconds", "Time of one transaction of the store, made durable."
        )
        self.errors = new.counter(
            "fleetpulse_store_errors_total", "Transactions of the store that failed, by why.", "reason"
        )


class StreamInstruments:
    """Of the stream of telemetry and its readers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.readers = new.gauge("fleetpulse_stream_readers", "Clients that read the stream of telemetry now.")
        self.events = new.counter(
            "fleetpulse_stream_events_total",
            "Events that were sent to readers of the stream of telemetry, by kind.",
            "event",
            values=STREAM_EVENTS,
        )
        self.readers_cut = new.counter(
            "fleetpulse_stream_readers_cut_total",
            "Readers of the stream of telemetry that took nothing for a minute, and were cut off.",
        )


class HistoryInstruments:
    """Of the history that the master keeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.samples = HubCounter(
            "fleetpulse_history_samples_total", "Updates of workers that were taken into the history.", registry
        )
        self.points_dropped = new.counter(
            "fleetpulse_history_points_dropped_total",
            "Points of the history that were given up, because the store was away for too long.",
        )
        self.write = new.histogram("fleetpulse_history_write_seconds", "Time of one transaction that wrote history.")
        self.rows = new.counter("fleetpulse_history_written_rows_total", "Rows of history that were written.")
        self.bytes = new.counter(
            "fleetpulse_history_written_bytes_total",
            "History that was written, compressed, without what the database adds.",
        )
        self.prometheus_failures = new.counter(
            "fleetpulse_history_prometheus_failures_total",
            "Reads of history that the store answered because Prometheus did not.",
        )


class CertificateInstruments:
    """Of certificates that the master gives to workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.issued = new.counter(
            "fleetpulse_certificates_issued_total",
            "Certificates that workers were given, by how: with a join token, or for the one they had.",
            "how",
            values=("join", "renew"),
        )
        self.refused = new.counter(
            "fleetpulse_certificates_refused_total",
            "Requests for a certificate that the master refused, by reason.",
            "reason",
        )
        self.life_used = new.gauge(
            "fleetpulse_certificate_life_used_ratio",
            "Share of its life that the master's certificate has behind it, and the most that one of a connected "
            "worker has; absent where there is none.",
            "holder",
        )
        self.expiry = new.gauge(
            "fleetpulse_certificate_expiry_timestamp_seconds",
            "When the master's certificate expires, and the first of those of connected workers; absent where there is "
            "none.",
            "holder",
        )


class AuditInstruments:
    """Of the audit trail."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.written = new.counter("fleetpulse_audit_entries_total", "Entries that were written to the audit trail.")
        self.dropped = new.counter(
            "fleetpulse_audit_entries_dropped_total",
            "Entries that the audit trail lacks, by why.",
            "reason",
            values=(QUEUE_FULL, WRITE_FAILED),
        )
        self.failures = new.counter(
            "fleetpulse_audit_failures_total",
            "Times that the file of the audit trail could not be written or made durable.",
        )
