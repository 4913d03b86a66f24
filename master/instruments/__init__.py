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

_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_WAIT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_RUN_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)

QUEUE_FULL = "queue_full"
WRITE_FAILED = "write_failed"

STREAM_EVENTS = ("reset", "snapshot", "update", "removed", "problem")

REJECT_REASONS = (
    "answer_not_taken", "body_too_large", "client_connections", "client_readers", "client_requests", "connections",
    "head_too_large", "idle", "json_too_deep", "line_too_long", "malformed", "readers", "slow_body", "slow_head",
    "tls_handshake",
)  # fmt: skip
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
            "build_info", "Always 1; the labels say what runs.", "version", "python_version"
        )
        self.tasks = TaskInstruments(registry)
        self.store = StoreInstruments(registry)
        self.stream = StreamInstruments(registry)
        self.history = HistoryInstruments(registry)
        self.certificates = CertificateInstruments(registry)
        self.audit = AuditInstruments(registry)


class _Factory:
    """Makes instruments in a registry; ``fleetpulse_`` goes before every name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str, values: Sequence[str] = ()) -> Counter:
        """``values`` are those of its label that have a series from the start."""
        counter = Counter(f"fleetpulse_{name}", text, labels, registry=self._registry)
        for value in values:
            counter.labels(value)
        return counter

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fleetpulse_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = _FAST_SECONDS) -> Histogram:
        return Histogram(f"fleetpulse_{name}", text, labels, buckets=buckets, registry=self._registry)

    def hub_counter(self, name: str, text: str) -> HubCounter:
        return HubCounter(f"fleetpulse_{name}", text, self._registry)

    def hub_histogram(self, name: str, text: str) -> HubHistogram:
        return HubHistogram(f"fleetpulse_{name}", text, _FAST_SECONDS, self._registry)


# fmt: off
class TelemetryInstruments:
    """Of heartbeats, and of the live table."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.heartbeats_received = new.hub_counter(
            "heartbeats_received_total", "Heartbeats that the master accepted, over a stream or one by one.")
        self.heartbeats_dropped = new.hub_counter(
            "heartbeats_dropped_total",
            "Accepted heartbeats that a newer one of the same worker overtook in a full queue.")
        self.heartbeats_rejected = new.counter(
            "heartbeats_rejected_total", "Heartbeats that the master refused, by reason.", "reason")
        self.receipt_to_visible = new.hub_histogram(
            "heartbeat_receipt_to_visible_seconds",
            "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.")
        self.sent_to_visible = new.hub_histogram(
            "heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.")
        self.callback_failures = new.counter(
            "update_callback_failures_total", "Exceptions out of the callback that receives every update.")
        self.workers = new.gauge("workers", "Workers that the master knows, by whether they are active.", "state")


class RpcInstruments:
    """Of calls and streams of gRPC."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.sessions = new.gauge("worker_sessions", "Streams of workers that are open and registered.")
        self.sessions_refused = new.counter(
            "worker_sessions_refused_total", "Streams that the master ended with an error, by reason.", "reason")
        self.requests = new.counter(
            "grpc_requests_total", "Calls that ended, by method and status code.", "method", "code")


class HttpInstruments:
    """Of requests and connections of HTTP clients."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.requests = new.counter(
            "http_requests_total", "Answered requests, by route, method and status.", "route", "method", "status")
        self.request_duration = new.histogram(
            "http_request_duration_seconds", "Time to make an answer, its sending left out, by route.", "route")
        self.connections = new.gauge("http_connections", "Connections of HTTP clients that are open.")
        self.rejected = new.counter(
            "http_rejected_total",
            "Requests that were refused and connections that were cut because of a limit, by reason.", "reason")
        self._by_reason = {reason: self.rejected.labels(reason) for reason in REJECT_REASONS}

    def reject(self, reason: str) -> None:
        """Count one. ``reason`` is one of ``REJECT_REASONS``."""
        self._by_reason[reason].inc()


class ExpositionInstruments:
    """Of /metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.duration = new.histogram("exposition_duration_seconds", "Time to put the text of /metrics together.")
        self.custom_samples_dropped = new.gauge(
            "custom_samples_dropped", "Samples of workers' custom metrics that /metrics leaves out now, by reason.",
            "reason")


class TaskInstruments:
    """Of tasks and their placement."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.tasks = new.gauge("tasks", "Tasks in the store, by status.", "status")
        self.finished = new.counter(
            "tasks_finished_total", "Tasks that ended, by how.", "status", values=("completed", "failed", "cancelled"))
        self.queue_wait = new.histogram(
            "task_queue_wait_seconds", "Time from when a task could have been placed until it was.",
            buckets=_WAIT_SECONDS)
        self.run_time = new.histogram(
            "task_run_seconds", "Time from when a container ran until it had ended.", buckets=_RUN_SECONDS)
        self.oldest_queued = new.gauge(
            "task_oldest_queued_seconds", "Age of the oldest task that waits for a place; 0 when none does.")
        self.attempts_ended = new.counter(
            "task_attempts_ended_total", "Attempts that ended, by how and why; the reasons of Docker are among them.",
            "status", "reason")
        self.reports_stale = new.counter(
            "task_reports_stale_total",
            "Reports and logs that workers sent about attempts that were not theirs, or not any more.")
        self.reports_foreign = new.counter(
            "task_reports_foreign_total",
            "Reports, logs and claims to hold an attempt that was never the worker's; the audit trail has them.")
        self.rescheduling_held = new.gauge(
            "task_rescheduling_held",
            "1 while attempts of lost workers are not given up, because much of the fleet is gone at once.")
        self.scheduling_round = new.histogram(
            "task_scheduling_round_seconds", "Time of one round in which waiting tasks were given places.")


class StoreInstruments:
    """Of the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.commit = new.histogram("store_commit_seconds", "Time of one transaction of the store, made durable.")
        self.errors = new.counter("store_errors_total", "Transactions of the store that failed, by why.", "reason")


class StreamInstruments:
    """Of the stream of telemetry and its readers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.readers = new.gauge("stream_readers", "Clients that read the stream of telemetry now.")
        self.events = new.counter(
            "stream_events_total", "Events that were sent to readers of the stream of telemetry, by kind.", "event",
            values=STREAM_EVENTS)
        self.readers_cut = new.counter(
            "stream_readers_cut_total",
            "Readers of the stream of telemetry that took nothing for a minute, and were cut off.")


class HistoryInstruments:
    """Of the history that the master keeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.samples = new.hub_counter(
            "history_samples_total", "Updates of workers that were taken into the history.")
        self.points_dropped = new.counter(
            "history_points_dropped_total",
            "Points of the history that were given up, because the store was away for too long.")
        self.write = new.histogram("history_write_seconds", "Time of one transaction that wrote history.")
        self.rows = new.counter("history_written_rows_total", "Rows of history that were written.")
        self.bytes = new.counter(
            "history_written_bytes_total", "History that was written, compressed, without what the database adds.")
        self.prometheus_failures = new.counter(
            "history_prometheus_failures_total",
            "Reads of history that the store answered because Prometheus did not.")


class CertificateInstruments:
    """Of certificates that the master gives to workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.issued = new.counter(
            "certificates_issued_total",
            "Certificates that workers were given, by how: with a join token, or for the one they had.", "how",
            values=("join", "renew"))
        self.refused = new.counter(
            "certificates_refused_total", "Requests for a certificate that the master refused, by reason.", "reason")
        self.life_used = new.gauge(
            "certificate_life_used_ratio",
            "Share of its life that the master's certificate has behind it, and the most that one of a connected "
            "worker has; absent where there is none.", "holder")
        self.expiry = new.gauge(
            "certificate_expiry_timestamp_seconds",
            "When the master's certificate expires, and the first of those of connected workers; absent where there is "
            "none.", "holder")


class AuditInstruments:
    """Of the audit trail."""

    def __init__(self, registry: CollectorRegistry) -> None:
        new = _Factory(registry)
        self.written = new.counter("audit_entries_total", "Entries that were written to the audit trail.")
        self.dropped = new.counter(
            "audit_entries_dropped_total", "Entries that the audit trail lacks, by why.", "reason",
            values=(QUEUE_FULL, WRITE_FAILED))
        self.failures = new.counter(
            "audit_failures_total", "Times that the file of the audit trail could not be written or made durable.")
# fmt: on
