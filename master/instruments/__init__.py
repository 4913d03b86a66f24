"""The master's own metrics, as objects that are built once and passed to the code that counts.

They live below the services and the adapters, so that neither needs to know who exposes them. The telemetry of the
workers is not here: that follows the live table (``metrics.exposition``).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, disable_created_metrics
from prometheus_client.gc_collector import GCCollector

from fleetpulse.master.errors import QUEUE_LIMITS
from fleetpulse.master.instruments.collectors import FAST_SECONDS, HubCounter, HubHistogram, ProcessMetrics

# A series more for each counter and histogram, which says since when it counts: process_start_time_seconds does.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types

M = TypeVar("M")

_WAIT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_RUN_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)

QUEUE_FULL = "queue_full"
WRITE_FAILED = "write_failed"

STREAM_EVENTS = ("reset", "snapshot", "update", "removed", "problem")

REJECT_REASONS = (
    "answer_not_taken", "body_too_large", "client_connections", "client_readers", "client_requests", "connections",
    "head_too_large", "idle", "json_too_deep", "line_too_long", "malformed", *QUEUE_LIMITS, "readers", "slow_body",
    "slow_head", "tls_handshake",
)  # fmt: skip
"""Every reason for which something is refused or cut; ``docs/security.md`` says of each when."""


class _Declared:
    """A metric that a group makes in its registry. ``values`` are those of its label with a series from the start."""

    def __init__(self, kind: Callable[..., Any], values: Sequence[str], *args: Any, **options: Any) -> None:
        self._kind, self._values, self._args, self._options = kind, values, args, options

    def make(self, registry: CollectorRegistry) -> Any:
        metric = self._kind(*self._args, registry=registry, **self._options)
        for value in self._values:
            metric.labels(value)
        return metric


def _metric(
    kind: Callable[..., M], name: str, text: str, *labels: str, values: Sequence[str] = (), **options: Any
) -> M:
    """Declares a metric of that kind; ``fleetpulse_`` goes before its name."""
    if labels:
        options["labelnames"] = labels
    if kind is Histogram:
        options.setdefault("buckets", FAST_SECONDS)
    return cast("M", _Declared(kind, values, f"fleetpulse_{name}", text, **options))


class _Group:
    """Makes the metrics that its class declares, as attributes of the same names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        for name, declared in vars(type(self)).items():
            if isinstance(declared, _Declared):
                setattr(self, name, declared.make(registry))


# fmt: off
class TelemetryInstruments(_Group):
    """Metrics of heartbeats, and of the live table."""

    heartbeats_received = _metric(HubCounter, "heartbeats_received_total",
        "Heartbeats that the master accepted, over a stream or one by one.")
    heartbeats_dropped = _metric(HubCounter, "heartbeats_dropped_total",
        "Accepted heartbeats that a newer one of the same worker overtook in a full queue.")
    heartbeats_superseded = _metric(HubCounter, "heartbeats_superseded_total",
        "Heartbeats that waited for the master until a newer one of the same worker replaced them; none counts as "
        "missed.")
    heartbeats_rejected = _metric(Counter, "heartbeats_rejected_total",
        "Heartbeats that the master refused, by reason.", "reason")
    receipt_to_visible = _metric(HubHistogram, "heartbeat_receipt_to_visible_seconds",
        "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.")
    sent_to_visible = _metric(HubHistogram, "heartbeat_sent_to_visible_seconds",
        "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
        "Clocks that differ show up here; a sending in the future counts as 0.")
    callback_failures = _metric(Counter, "update_callback_failures_total",
        "Exceptions out of the callback that receives every update.")
    workers = _metric(Gauge, "workers", "Workers that the master knows, by whether they are active.", "state")


class RpcInstruments(_Group):
    """Metrics of calls and streams of gRPC."""

    sessions = _metric(Gauge, "worker_sessions", "Streams of workers that are open and registered.")
    sessions_refused = _metric(Counter, "worker_sessions_refused_total",
        "Streams that the master ended with an error, by reason.", "reason")
    backlog_age = _metric(Gauge, "grpc_backlog_age_seconds",
        "Age of the oldest message of a worker that the master has received and not handled; 0 when none waits.")
    report_entries_refused = _metric(Counter, "report_entries_refused_total",
        "Entries of reports for many workers that the master refused, by reason.", "reason")
    requests = _metric(Counter, "grpc_requests_total", "Calls that ended, by method and status code.", "method", "code")


class HttpInstruments(_Group):
    """Metrics of requests and connections of HTTP clients."""

    requests = _metric(Counter, "http_requests_total",
        "Answered requests, by route, method and status.", "route", "method", "status")
    request_duration = _metric(Histogram, "http_request_duration_seconds",
        "Time to make an answer, its sending left out, by route.", "route")
    connections = _metric(Gauge, "http_connections", "Connections of HTTP clients that are open.")
    rejected = _metric(Counter, "http_rejected_total",
        "Requests that were refused and connections that were cut because of a limit, by reason.", "reason",
        values=REJECT_REASONS)

    def reject(self, reason: str) -> None:
        """Count one. ``reason`` is one of ``REJECT_REASONS``."""
        self.rejected.labels(reason).inc()


class BuildInstruments(_Group):
    """Metrics of the build."""

    info = _metric(Gauge, "build_info", "Always 1; the labels say what runs.", "version", "python_version")


class ExpositionInstruments(_Group):
    """Metrics of /metrics."""

    duration = _metric(Histogram, "exposition_duration_seconds", "Time to put the text of /metrics together.")
    custom_samples_dropped = _metric(Gauge, "custom_samples_dropped",
        "Samples of workers' custom metrics that /metrics leaves out now, by reason.", "reason")
    names_left_out = _metric(Gauge, "metrics_names_left_out",
        "Running tasks and devices that workers report and /metrics leaves out now, by reason.", "reason")

    def show_names_left_out(self, reason: str, count: int) -> None:
        """So many are left out now, for this reason."""
        self.names_left_out.labels(reason).set(count)


class TaskInstruments(_Group):
    """Metrics of tasks and their placement."""

    tasks = _metric(Gauge, "tasks", "Tasks in the store, by status.", "status")
    finished = _metric(Counter, "tasks_finished_total",
        "Tasks that ended, by how.", "status", values=("completed", "failed", "cancelled"))
    queue_wait = _metric(Histogram, "task_queue_wait_seconds",
        "Time from when a task could have been placed until it was.", buckets=_WAIT_SECONDS)
    run_time = _metric(Histogram, "task_run_seconds",
        "Time from when a container ran until it had ended.", buckets=_RUN_SECONDS)
    oldest_queued = _metric(Gauge, "task_oldest_queued_seconds",
        "Age of the oldest task that waits for a place; 0 when none does.")
    queued_bytes = _metric(Gauge, "task_queued_bytes", "Size of the requests of the tasks that are queued.")
    attempts_ended = _metric(Counter, "task_attempts_ended_total",
        "Attempts that ended, by how and why; the reasons of Docker are among them.", "status", "reason")
    reports_stale = _metric(Counter, "task_reports_stale_total",
        "Reports and logs that workers sent about attempts that were not theirs, or not any more.")
    reports_foreign = _metric(Counter, "task_reports_foreign_total",
        "Reports, logs and claims to hold an attempt that was never the worker's; the audit trail has them.")
    rescheduling_held = _metric(Gauge, "task_rescheduling_held",
        "1 while attempts of lost workers are not given up, because much of the fleet is gone at once, or not back "
        "since the master started.")
    scheduling_round = _metric(Histogram, "task_scheduling_round_seconds",
        "Time of one round in which waiting tasks were given places.")


class StoreInstruments(_Group):
    """Metrics of the store."""

    commit = _metric(Histogram, "store_commit_seconds", "Time of one transaction of the store, made durable.")
    errors = _metric(Counter, "store_errors_total", "Transactions of the store that failed, by why.", "reason")


class StreamInstruments(_Group):
    """Metrics of the stream of telemetry and its readers."""

    readers = _metric(Gauge, "stream_readers", "Clients that read the stream of telemetry now.")
    events = _metric(Counter, "stream_events_total",
        "Events that were sent to readers of the stream of telemetry, by kind.", "event", values=STREAM_EVENTS)
    readers_cut = _metric(Counter, "stream_readers_cut_total",
        "Readers of the stream of telemetry that took nothing for a minute, and were cut off.")


class HistoryInstruments(_Group):
    """Metrics of the history that the master keeps."""

    samples = _metric(HubCounter, "history_samples_total", "Updates of workers that were taken into the history.")
    points_dropped = _metric(Counter, "history_points_dropped_total",
        "Points of the history that were given up, because the store was away for too long.")
    write = _metric(Histogram, "history_write_seconds", "Time of one transaction that wrote history.")
    rows = _metric(Counter, "history_written_rows_total", "Rows of history that were written.")
    bytes = _metric(Counter, "history_written_bytes_total",
        "History that was written, compressed, without what the database adds.")
    prometheus_failures = _metric(Counter, "history_prometheus_failures_total",
        "Reads of history that the store answered because Prometheus did not.")


class CertificateInstruments(_Group):
    """Metrics of certificates that the master gives to workers."""

    issued = _metric(Counter, "certificates_issued_total",
        "Certificates that workers were given, by how: with a join token, or for the one they had.", "how",
        values=("join", "renew"))
    refused = _metric(Counter, "certificates_refused_total",
        "Requests for a certificate that the master refused, by reason.", "reason")
    life_used = _metric(Gauge, "certificate_life_used_ratio",
        "Share of its life that the master's certificate has behind it, and the most that one of a connected worker "
        "has; absent where there is none.", "holder")
    expiry = _metric(Gauge, "certificate_expiry_timestamp_seconds",
        "When the master's certificate expires, and the first of those of connected workers; absent where there is "
        "none.", "holder")


class AuditInstruments(_Group):
    """Metrics of the audit trail."""

    written = _metric(Counter, "audit_entries_total", "Entries that were written to the audit trail.")
    dropped = _metric(Counter, "audit_entries_dropped_total",
        "Entries that the audit trail lacks, by why.", "reason", values=(QUEUE_FULL, WRITE_FAILED))
    failures = _metric(Counter, "audit_failures_total",
        "Times that the file of the audit trail could not be written or made durable.")
# fmt: on


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
        self.build_info = BuildInstruments(registry).info
        self.tasks = TaskInstruments(registry)
        self.store = StoreInstruments(registry)
        self.stream = StreamInstruments(registry)
        self.history = HistoryInstruments(registry)
        self.certificates = CertificateInstruments(registry)
        self.audit = AuditInstruments(registry)
