"""Every limit of an alert. A test keeps the rules and docs/monitoring.md in step with it.

``value`` is in the unit of the metric, as in the rule; ratios are between 0 and 1.
"""

from typing import NamedTuple


class Threshold(NamedTuple):
    """``alert`` fires with ``severity`` if ``of`` is beyond ``value``."""

    alert: str
    severity: str
    of: str
    value: float
    unit: str


THRESHOLDS: dict[str, Threshold] = {
    # Workers
    "worker_flaps": Threshold("FleetPulseWorkerFlapping", "warning", "turns of up and down in 30 minutes", 4, "turns"),
    "heartbeats_missed_rate": Threshold(
        "FleetPulseWorkerHeartbeatsMissed", "warning", "heartbeats of a worker that never arrived", 0.02, "1/s"
    ),
    "heartbeats_dropped_ratio": Threshold(
        "FleetPulseHeartbeatsDropped", "warning", "share of heartbeats overtaken in their queue", 0.01, "ratio"
    ),
    "heartbeat_visible_seconds": Threshold(
        "FleetPulseHeartbeatsLate", "warning", "p99 from receipt until visible", 1.0, "s"
    ),
    "backlog_age_seconds": Threshold(
        "FleetPulseMasterOverloaded", "warning", "age of the oldest message of a worker that waits", 5.0, "s"
    ),
    "clock_skew_seconds": Threshold(
        "FleetPulseClockSkew", "warning", "from sending by the worker's clock until visible", 5.0, "s"
    ),
    "clock_ahead_seconds": Threshold(
        "FleetPulseClockAhead", "warning", "how far a worker's clock is ahead of the master's", 5.0, "s"
    ),
    "fleet_gone_ratio": Threshold(
        "FleetPulseFleetPartlyGone", "critical", "share of the workers that are down and not drained", 0.2, "ratio"
    ),
    "fleet_gone_workers": Threshold(
        "FleetPulseFleetPartlyGone", "critical", "workers that are down and not drained", 2, "workers"
    ),
    # Capacity
    "cpu_ratio": Threshold("FleetPulseWorkerCpuSaturated", "warning", "CPU in use, mean of 15 minutes", 0.95, "ratio"),
    "load_per_core": Threshold("FleetPulseWorkerCpuSaturated", "warning", "load5 by core, at the same time", 1.5, "1"),
    "memory_ratio": Threshold("FleetPulseWorkerMemoryLow", "warning", "memory in use", 0.95, "ratio"),
    "memory_stalled_ratio": Threshold(
        "FleetPulseWorkerMemoryPressure", "warning", "share of time in which all work waited for memory", 0.1, "ratio"
    ),
    "filesystem_ratio": Threshold("FleetPulseFilesystemNearlyFull", "warning", "filesystem in use", 0.90, "ratio"),
    "filesystem_full_ratio": Threshold("FleetPulseFilesystemFull", "critical", "filesystem in use", 0.97, "ratio"),
    "filesystem_fills_guard_ratio": Threshold(
        "FleetPulseFilesystemFillsIn4Hours", "warning", "filesystem in use already", 0.60, "ratio"
    ),
    "filesystem_inodes_ratio": Threshold("FleetPulseFilesystemInodesLow", "warning", "inodes in use", 0.95, "ratio"),
    "gpu_temperature_celsius": Threshold("FleetPulseGpuHot", "warning", "temperature of a GPU", 85, "°C"),
    "gpu_memory_ratio": Threshold("FleetPulseGpuMemoryNearlyFull", "info", "GPU memory in use", 0.97, "ratio"),
    # Tasks
    "queue_age_seconds": Threshold(
        "FleetPulseTaskQueueTooOld", "warning", "age of the oldest task that waits for a place", 900, "s"
    ),
    "task_failure_ratio": Threshold(
        "FleetPulseTaskFailureRatioHigh", "warning", "failed of all that ended in 30 minutes", 0.25, "ratio"
    ),
    "task_failures": Threshold("FleetPulseTaskFailureRatioHigh", "warning", "tasks failed in 30 minutes", 5, "tasks"),
    "attempts_lost": Threshold(
        "FleetPulseTaskAttemptsLost", "warning", "attempts lost with their workers in 30 minutes", 3, "attempts"
    ),
    "pending_seconds": Threshold(
        "FleetPulseTasksStuckPending", "warning", "mean time that a task is pending", 600, "s"
    ),
    "stale_reports_rate": Threshold(
        "FleetPulseTaskReportsStale", "warning", "reports about attempts that are not the worker's", 0.1, "1/s"
    ),
    "docker_failures": Threshold(
        "FleetPulseDockerFailing", "warning", "attempts failed by Docker in 15 minutes", 3, "attempts"
    ),
    # Master
    "master_restarts": Threshold(
        "FleetPulseMasterRestarting", "critical", "starts of the web process in 30 minutes", 2, "starts"
    ),
    "scrape_seconds": Threshold("FleetPulseScrapeSlow", "warning", "time of a scrape of the master", 5.0, "s"),
    "scrape_samples": Threshold("FleetPulseSampleLimitNear", "warning", "samples of a scrape", 800_000, "samples"),
    "http_error_ratio": Threshold(
        "FleetPulseHttpErrors", "warning", "share of HTTP answers with a status of 5xx", 0.05, "ratio"
    ),
    "grpc_error_rate": Threshold("FleetPulseGrpcErrors", "warning", "gRPC calls that ended in an error", 0.1, "1/s"),
    "heartbeats_rejected_rate": Threshold(
        "FleetPulseHeartbeatsRejected", "warning", "heartbeats that the master refused", 0.1, "1/s"
    ),
    "store_commit_seconds": Threshold("FleetPulseStoreSlow", "warning", "p99 of a transaction", 1.0, "s"),
    "open_files_ratio": Threshold("FleetPulseMasterOpenFiles", "warning", "open files of those allowed", 0.8, "ratio"),
    "certificate_used_ratio": Threshold(
        "FleetPulseCertificateNotRenewed", "warning", "share of a certificate's life that is over", 0.75, "ratio"
    ),
    "certificate_nearly_expired_ratio": Threshold(
        "FleetPulseCertificateNearlyExpired", "critical", "share of a certificate's life that is over", 0.9, "ratio"
    ),
    # Anomalies
    "anomaly_own_z": Threshold(
        "FleetPulseWorkerAnomalous", "info", "change against the worker's own spread", 4, "sigma"
    ),
    "anomaly_peer_z": Threshold("FleetPulseWorkerAnomalous", "info", "change against the peers' changes", 5, "sigma"),
}


def limit(name: str) -> float:
    """Returns the value of a threshold. Raises ``KeyError`` for an unknown name."""
    return THRESHOLDS[name].value
