"""Cases for monitoring/rules/tasks.yml."""

from tests.monitoring.promtool import Case, Firing, flat, rising, turning

TASKS = "fleetpulse-tasks"
MASTER = "http://master:8080"
OLDEST = "fleetpulse_task_oldest_queued_seconds"
STALE = "fleetpulse_task_reports_stale_total"


def finished(failed: float, completed: float) -> dict[str, str]:
    """Tasks that end per minute."""
    return {
        'fleetpulse_tasks_finished_total{status="failed"}': rising(failed),
        'fleetpulse_tasks_finished_total{status="completed"}': rising(completed),
        'fleetpulse_tasks_finished_total{status="cancelled"}': flat(0),
    }


def pending(tasks: float, placed: float) -> dict[str, str]:
    """A constant number of pending tasks, and the placements per minute."""
    return {
        'fleetpulse_tasks{status="pending"}': flat(tasks),
        "fleetpulse_task_queue_wait_seconds_count": rising(placed),
    }


def ended(count: int, status: str, reason: str) -> dict[str, str]:
    """Attempts that end at minute 5, as the first samples of their series."""
    labels = f'{{status="{status}",reason="{reason}"}}'
    return finished(0, 0) | {f"fleetpulse_task_attempts_ended_total{labels}": turning(("_", 5), (count, 90))}


QUEUE = [
    Case(
        "FleetPulseTaskQueueTooOld", "15-minutes", {OLDEST: flat(930)}, [1, 4], 5,
        [
            Firing(
                "warning", "tasks", "A task has waited for 15m 30s",
                "The oldest task in the queue of the master master:8080 has waited for 15m 30s. The fleet is full, "
                "or no worker has the resources that the task requires.",
                f"curl -s '{MASTER}/api/tasks?status=queued&limit=1000' | jq -r '.[] | [.created_at, .task_id, "
                ".queue_reason] | @tsv' | sort | head",
                TASKS,
            )
        ],
    ),
    Case("FleetPulseTaskQueueTooOld", "not-yet", {OLDEST: flat(870)}, [5, 30]),
    Case("FleetPulseTaskQueueTooOld", "a-queue-that-moves", {OLDEST: " ".join(["0+300x4"] * 4)}, [5, 10, 15, 19]),
]  # fmt: skip

FAILURES = [
    Case(
        # 5.7 of 20.7 in 30 minutes.
        "FleetPulseTaskFailureRatioHigh", "more-than-a-quarter", finished(0.19, 0.5), [27, 36], 37,
        [
            Firing(
                "warning", "tasks", "Many tasks fail",
                "27.54% of the tasks that ended in the last 30 minutes on the master master:8080 failed.",
                f"curl -s '{MASTER}/api/tasks?status=failed&limit=100' | jq -r '.[] | [.reason, .docker_image] | @tsv' "
                "| sort | uniq -c | sort -rn",
                TASKS,
            )
        ],
    ),
    Case("FleetPulseTaskFailureRatioHigh", "less-than-a-quarter", finished(0.24, 0.76), [40, 90]),
    Case("FleetPulseTaskFailureRatioHigh", "few-in-all", finished(0.16, 0.4), [40, 90]),
    Case("FleetPulseTaskFailureRatioHigh", "nothing-ends", finished(0, 0), [40, 90]),
]  # fmt: skip

LOST = [
    Case(
        "FleetPulseTaskAttemptsLost", "four-at-once", ended(4, "lost", "worker_lost"), [1, 5], 6,
        [
            Firing(
                "warning", "tasks", "Attempts of tasks were lost",
                "4 attempts of tasks were lost in 30 minutes on the master master:8080: their workers became "
                "inactive, or reconnected without them.",
                f"curl -s {MASTER}/workers | jq -r '.[] | select(.is_active | not) | .worker_id'",
                TASKS,
            )
        ],
    ),
    Case("FleetPulseTaskAttemptsLost", "three", ended(3, "lost", "worker_lost"), [6, 20]),
    Case("FleetPulseTaskAttemptsLost", "failed-is-not-lost", ended(9, "failed", "exit_code"), [6, 20]),
    Case("FleetPulseTaskAttemptsLost", "long-ago", ended(9, "lost", "worker_lost"), [36, 60]),
]  # fmt: skip


def stuck(how_long: str) -> Firing:
    return Firing(
        "warning",
        "tasks",
        "Tasks are stuck while their containers are prepared",
        f"Tasks of the master master:8080 are pending for {how_long} on average, +Inf if none was placed in 30 "
        "minutes: images are pulled slowly, or Docker Engines do not answer.",
        f"curl -s '{MASTER}/api/tasks?status=pending' | jq -r '.[] | [.task_id, .worker_id, .docker_image] | @tsv'",
        TASKS,
    )


STUCK = [
    Case("FleetPulseTasksStuckPending", "11-minutes", pending(11, 1), [5, 30, 39], 40, [stuck("11m 0s")]),
    Case("FleetPulseTasksStuckPending", "one-and-no-other", pending(1, 0), [30, 39], 40, [stuck("+Inf")]),
    Case("FleetPulseTasksStuckPending", "9-minutes", pending(9, 1), [40, 90]),
    Case("FleetPulseTasksStuckPending", "nothing-to-do", pending(0, 0), [40, 90]),
    Case("FleetPulseTasksStuckPending", "a-busy-fleet", pending(40, 100), [40, 90]),
]

REPORTS = [
    Case(
        "FleetPulseTaskReportsStale", "6.6-a-minute", {STALE: rising(6.6)}, [15, 28], 29,
        [
            Firing(
                "warning", "tasks", "Workers report about tasks that are not theirs",
                "The master master:8080 rejects 0.11 reports per second about attempts that are on other workers or "
                "have ended: workers run attempts that they should not run.",
                f"curl -s {MASTER}/metrics | grep -E '^fleetpulse_task_(reports_stale|attempts_ended)'",
                TASKS,
            )
        ],
    ),
    Case("FleetPulseTaskReportsStale", "5.4-a-minute", {STALE: rising(5.4)}, [29, 90]),
    Case("FleetPulseTaskReportsStale", "after-one-outage", {STALE: turning((0, 5), (50, 90))}, [20, 29, 60]),
    Case(
        "FleetPulseDockerFailing", "four-at-once", ended(4, "failed", "docker_unavailable"), [5, 9], 10,
        [
            Firing(
                "warning", "tasks", "Docker fails tasks",
                "4 attempts failed in 15 minutes on workers of the master master:8080 because of Docker or of its "
                "machine, not because of the task.",
                f"curl -s {MASTER}/metrics | grep '^fleetpulse_task_attempts_ended_total'",
                TASKS,
            )
        ],
    ),
    Case("FleetPulseDockerFailing", "three", ended(3, "failed", "container_failed"), [10, 15]),
    Case("FleetPulseDockerFailing", "no-such-image", ended(9, "failed", "image_not_found"), [10, 15]),
]  # fmt: skip

CASES = [*QUEUE, *FAILURES, *LOST, *STUCK, *REPORTS]
