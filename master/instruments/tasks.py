"""What the master counts of tasks and of their placement."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fleetpulse.master.instruments.hub import FAST_SECONDS

_WAIT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_RUN_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)


class TaskInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tasks = Gauge("fleetpulse_tasks", "Tasks in the store, by status.", ["status"], registry=registry)
        self.finished = Counter(
            "fleetpulse_tasks_finished_total", "Tasks that ended, by how.", ["status"], registry=registry
        )
        self.queue_wait = Histogram(
            "fleetpulse_task_queue_wait_seconds",
            "Time from when a task could have been placed until it was.",
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self.run_time = Histogram(
            "fleetpulse_task_run_seconds",
            "Time from when a container ran until it had ended.",
            buckets=_RUN_SECONDS,
            registry=registry,
        )
        self.oldest_queued = Gauge(
            "fleetpulse_task_oldest_queued_seconds",
            "Age of the oldest task that waits for a place; 0 when none does.",
            registry=registry,
        )
        self.attempts_ended = Counter(
            "fleetpulse_task_attempts_ended_total",
            "Attempts that ended, by how and why; the reasons of Docker are among them.",
            ["status", "reason"],
            registry=registry,
        )
        self.reports_stale = Counter(
            "fleetpulse_task_reports_stale_total",
            "Reports and logs that workers sent about attempts that were not theirs, or not any more.",
            registry=registry,
        )
        self.reports_foreign = Counter(
            "fleetpulse_task_reports_foreign_total",
            "Reports, logs and claims to hold an attempt that was never the worker's; the audit trail has them.",
            registry=registry,
        )
        self.rescheduling_held = Gauge(
            "fleetpulse_task_rescheduling_held",
            "1 while attempts of lost workers are not given up, because much of the fleet is gone at once.",
            registry=registry,
        )
        self.scheduling_round = Histogram(
            "fleetpulse_task_scheduling_round_seconds",
            "Time of one round in which waiting tasks were given places.",
            buckets=FAST_SECONDS,
            registry=registry,
        )
        for status in ("completed", "failed", "cancelled"):
            self.finished.labels(status)
