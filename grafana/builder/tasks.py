"""The Tasks dashboard: flow, queue, waits, failures, and where tasks run."""

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.board import Section, board, search
from grafana.builder.charts import lines, spread, states
from grafana.builder.figures import bars, number
from grafana.builder.limits import ORANGE, SHOWN, alerting, steps
from grafana.builder.panels import HALF, THIRD, WIDE, Text
from grafana.builder.queries import FOUND, ROWS, TOP, Query, buckets, by_worker, or_zero, quantiles, rate, top
from grafana.builder.tables import WORKER, Column, firing, rows

FAILED_SHARE = (
    'sum(increase(fleetpulse_tasks_finished_total{{status="failed"}}[{window}]))'
    ' / (sum(increase(fleetpulse_tasks_finished_total{{status=~"completed|failed"}}[{window}])) > 0)'
)
_BY_DOCKER = (
    "fleetpulse_task_attempts_ended_total"
    '{reason=~"docker_unavailable|container_failed|container_gone|image_pull_failed|disk_full|no_task_support"}'
)
_HELD = {0: "no", 1: "held back"}


def tasks() -> sdk.Dashboard:
    return board(
        "fleetpulse-tasks",
        "What waits and why it takes so long, what runs and where, what fails.",
        [
            Section("Now", _now()),
            Section("Flow", _flow()),
            Section("Waiting and running times", _times()),
            Section("Failures", _failures()),
            Section("By worker", _by_worker()),
        ],
        [search()],
    )


def or_else(recorded: str, raw: str) -> str:
    """An increase by the recording rule, which begins at 0, or without it, when the first of all cannot be seen."""
    return or_zero(f"sum(increase({recorded})) or sum(increase({raw}))")


def _now() -> list[sdk.Panel]:
    def of(status: str, what: str) -> sdk.Panel:
        expr = f'max(fleetpulse_tasks{{status="{status}"}})'
        return number(Text(status.capitalize(), what, "short"), expr, SHOWN)

    lost = or_else(
        "fleetpulse:task_attempts_lost:total[30m]", 'fleetpulse_task_attempts_ended_total{status="lost"}[30m]'
    )
    return [
        of("queued", "Tasks that wait for a place. GET /api/tasks/ID says what each waits for."),
        of("pending",
           "Tasks that have a place and whose container is being prepared: most often, its image is pulled."),
        of("running", "Tasks whose containers run."),
        number(Text("Oldest in the queue", "How long the oldest task has waited for a place. Coloured from where "
                    "FleetPulseTaskQueueTooOld fires.", "s"),
               "max(fleetpulse_task_oldest_queued_seconds)", alerting("queue_age_seconds")),
        number(Text("Failed, 30 minutes",
                    "Share of those that completed or failed in the last 30 minutes. Coloured from where "
                    "FleetPulseTaskFailureRatioHigh fires, if there were enough of them.", "percentunit"),
               FAILED_SHARE.format(window="30m"), alerting("task_failure_ratio")),
        number(Text("Lost, 30 minutes", "Attempts that ended with their workers in the last 30 minutes.", "short"),
               lost, alerting("attempts_lost")),
    ]  # fmt: skip


def _flow() -> list[sdk.Panel]:
    live = lines(
        Text("Live tasks", "Tasks that have not ended, by status.", "short"),
        Query('max by (status) (fleetpulse_tasks{status=~"queued|pending|running"})', "{{status}}"),
        stacked=True,
    )
    ended = lines(
        Text("Ended", "Tasks that ended, each second, by how.", "cps"),
        Query(f"sum by (status) ({rate('fleetpulse_tasks_finished_total')})", "{{status}}"),
        stacked=True,
    )
    return [
        live, ended,
        lines(Text("Queue",
                   "Age of the oldest task that waits for a place; 0 when none does. The line is the alert's.", "s"),
              Query("max(fleetpulse_task_oldest_queued_seconds)", "oldest"), limits=alerting("queue_age_seconds"),
              size=THIRD),
        lines(Text("All ended tasks in the store", "By how they ended, until their retention is over.", "short"),
              Query('max by (status) (fleetpulse_tasks{status=~"completed|failed|cancelled"})', "{{status}}"),
              size=THIRD),
        states(Text("Rescheduling held",
                    "Held back while so much of the fleet is gone at once that the master's own network "
                    "is the more likely cause: attempts of lost workers are not given up meanwhile.", "short"),
               Query("max(fleetpulse_task_rescheduling_held)", "rescheduling"),
               limits=steps((1, ORANGE)), names=_HELD, size=THIRD),
    ]  # fmt: skip


def _times() -> list[sdk.Panel]:
    waits = Text("Waits", "From when a task could have been placed until it was.", "s")
    runs = Text("Run times", "From when a container ran until it had ended.", "s")
    rounds = Text("Scheduling rounds", "Time of one round in which waiting tasks were given places.", "s")
    # By Little's law, as the alert has it: how many are pending, by how many become so in a second.
    pending = (
        'sum(avg_over_time(fleetpulse_tasks{status="pending"}[30m]))'
        " / (sum(rate(fleetpulse_task_queue_wait_seconds_count[30m])) > 0)"
    )
    return [
        lines(waits, *quantiles("task_queue_wait_seconds"), size=THIRD),
        lines(runs, *quantiles("task_run_seconds"), size=THIRD),
        lines(rounds, *quantiles("task_scheduling_round_seconds"), size=THIRD),
        spread(Text("Waits, all", "How many tasks were placed after so long a wait.", "s"),
               buckets("task_queue_wait_seconds"), "short", THIRD),
        spread(Text("Run times, all", "How many attempts ran so long.", "s"), buckets("task_run_seconds"), "short",
               THIRD),
        lines(Text("Pending", "Mean time to prepare a container, in the 30 minutes before. The line is the alert's.",
                   "s"),
              Query(pending, "mean"), limits=alerting("pending_seconds"), size=THIRD),
    ]  # fmt: skip


def _failures() -> list[sdk.Panel]:
    docker = or_else("fleetpulse:task_attempts_docker_failed:total[15m]", f"{_BY_DOCKER}[15m]")
    ended = rate("fleetpulse_task_attempts_ended_total")
    not_well = rate('fleetpulse_task_attempts_ended_total{status=~"failed|lost"}')
    why = f"topk({ROWS}, sum by (status, reason) (increase(fleetpulse_task_attempts_ended_total[$__range])))"
    return [
        lines(Text("Failed share",
                   "Of the tasks that completed or failed in the 30 minutes before. The line is the alert's.",
                   "percentunit"),
              Query(FAILED_SHARE.format(window="30m"), "failed"), limits=alerting("task_failure_ratio"), size=THIRD,
              most=1),
        lines(Text("Attempts", "Attempts that ended, each second, by how.", "cps"),
              Query(f"sum by (status) ({ended})", "{{status}}"), size=THIRD, stacked=True),
        lines(Text("Why attempts failed or were lost", "Attempts, each second, by reason.", "cps"),
              Query(f"sum by (status, reason) ({not_well})", "{{status}}: {{reason}}"), size=THIRD, stacked=True),
        lines(Text("Failed by Docker",
                   "Attempts in the 15 minutes before that failed because of the machine or its engine.",
                   "short"), Query(docker, "failed"), limits=alerting("docker_failures"), size=THIRD),
        rows(Text("Attempts by how and why they ended",
                  "In the whole time range; /api/tasks/ID has the attempts of one task.", "short"),
             Column("How", "status"), Column("Why", "reason"), Column("Attempts", why, "short"), size=THIRD,
             sort="Attempts"),
        lines(Text("Stale reports",
                   "Reports and logs about attempts that were not the worker's any more, each second.", "cps"),
              Query(f"sum({rate('fleetpulse_task_reports_stale_total')})", "stale"),
              limits=alerting("stale_reports_rate"), size=THIRD),
        firing({"alertname": "FleetPulse(Task|Docker).*"}, WIDE, ", about tasks", of_workers=False),
    ]  # fmt: skip


def _by_worker() -> list[sdk.Panel]:
    share = f"{by_worker(FOUND('allocated_cpu_cores'))} / {by_worker(FOUND('cpu_logical_cores'))}"

    cpu = f"max by (worker_id, task_id) ({FOUND('task_cpu_usage_ratio')})"
    busiest = f"topk({ROWS}, {cpu})"
    memory = f"max by (worker_id, task_id) ({FOUND('task_memory_used_bytes')}) and on (worker_id, task_id) {busiest}"
    return [
        lines(Text("Running tasks", "The ten workers that run most at the end of the time range.", "short"),
              Query(top(lambda at: f"{FOUND('running_tasks')}{at}"), "{{worker_id}}"),
              per_worker=True),
        bars(Text("Promised CPU", "Share of a worker's cores that is promised to tasks, the ten fullest now.",
                  "percentunit"),
             Query(f"topk({TOP}, {share})", "{{worker_id}}"), most=1),
        rows(Text("Workers by running tasks", f"The {ROWS} that run most, with what is promised.", "short"), WORKER,
             Column("Tasks", f"topk({ROWS}, {by_worker(FOUND('running_tasks'))})", "short"),
             Column("Cores", _beside("allocated_cpu_cores"), "short"),
             Column("Memory", _beside("allocated_memory_bytes"), "bytes"),
             Column("GPUs", _beside("allocated_gpus"), "short"), size=HALF, sort="Tasks"),
        rows(Text("Running tasks by CPU", f"The {ROWS} that use most. CPU is of one core: 200 % is two cores.",
                  "short"),
             Column("Task", "task_id"), WORKER, Column("CPU", busiest, "percentunit"),
             Column("Memory", memory, "bytes"),
             size=HALF, sort="CPU"),
    ]  # fmt: skip


def _beside(name: str) -> str:
    """A reading of the workers in the table."""
    return f"{by_worker(FOUND(name))} and on (worker_id) topk({ROWS}, {by_worker(FOUND('running_tasks'))})"
