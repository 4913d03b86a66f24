"""The Master dashboard, the master about itself, and the Tasks dashboard: flow, queue, waits and failures."""

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.dashboard import Section, dashboard, search_variable
from grafana.builder.panels import (
    BLUE_ALWAYS,
    HALF,
    ORANGE_FROM_1,
    QUARTER,
    THIRD,
    WIDE,
    WORKER,
    Column,
    Text,
    alert_thresholds,
    alerts_table,
    bar_gauge,
    graph,
    heatmap,
    label_panel,
    stat_panel,
    state_timeline,
    table,
)
from grafana.builder.queries import (
    MATCHING,
    ROWS,
    TOP,
    Query,
    buckets,
    by_worker,
    of_master,
    or_zero,
    quantile,
    quantiles,
    rate,
    top,
)

_STARTED = of_master("process_start_time_seconds")
_OPEN = f"max({of_master('process_open_fds')}) / max({of_master('process_max_fds')})"


def master() -> sdk.Dashboard:
    return dashboard(
        "fleetpulse-master",
        "The master about itself: heartbeats, latency, HTTP, gRPC, the store, the scheduler, the process.",
        [
            Section("Now", _master_now()),
            Section("Heartbeats", _heartbeats()),
            Section("HTTP and scrapes", _http()),
            Section("gRPC and streams of workers", _grpc()),
            Section("Store and scheduler", _store()),
            Section("Process", _process()),
        ],
        [],
    )


def _master_now() -> list[sdk.Panel]:
    return [
        label_panel(Text("Version", "Of FleetPulse on the master.", "short"),
                    Query("max by (version) (fleetpulse_build_info)", "{{version}}")),
        stat_panel(Text("Up for", "Time since its web process was started.", "s"), f"time() - max({_STARTED})"),
        stat_panel(Text("Restarts, 30 minutes", "Starts of the web process after the first. Coloured from where "
                        "FleetPulseMasterRestarting fires.", "short"),
                   "max(changes(process_start_time_seconds[30m]) and on (instance, job) fleetpulse_build_info)",
                   alert_thresholds("master_restarts")),
        stat_panel(Text("Heartbeats", "Accepted, each second.", "cps"),
                   f"sum({rate('fleetpulse_heartbeats_received_total')})"),
        stat_panel(Text("Time to be visible, p99", "From a heartbeat's arrival until REST and /metrics show it.", "s"),
                   quantile(0.99, "heartbeat_receipt_to_visible_seconds"),
                   alert_thresholds("heartbeat_visible_seconds")),
        stat_panel(Text("Open files", "Of those that the process may open; each worker needs one.", "percentunit"),
                   _OPEN, alert_thresholds("open_files_ratio")),
    ]  # fmt: skip


def _heartbeats() -> list[sdk.Panel]:
    received, dropped = (rate(f"fleetpulse_heartbeats_{what}_total") for what in ("received", "dropped"))
    return [
        graph(Text("Accepted", "Heartbeats, each second.", "cps"), Query(f"sum({received})", "received"), size=THIRD),
        graph(Text("Dropped share", "Of the accepted heartbeats, those that a newer one overtook in a full queue.",
                   "percentunit"),
              Query(f"sum({dropped}) / (sum({received}) > 0)", "dropped"),
              limits=alert_thresholds("heartbeats_dropped_ratio"), size=THIRD),
        graph(Text("Rejected",
                   "Heartbeats that the master refused, each second, by reason. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_heartbeats_rejected_total')})", "{{reason}}"),
              limits=alert_thresholds("heartbeats_rejected_rate"), size=THIRD),
        graph(Text("Receipt to visible",
                   "From a heartbeat's arrival in the master's code until REST and /metrics show it.", "s"),
              *quantiles("heartbeat_receipt_to_visible_seconds"), limits=alert_thresholds("heartbeat_visible_seconds"),
              size=THIRD),
        heatmap(Text("Receipt to visible, all", "How many heartbeats took so long.", "s"),
                buckets("heartbeat_receipt_to_visible_seconds"), "short", THIRD),
        graph(Text("Sent to visible",
                   "From a heartbeat's sending, by the worker's clock, until it is shown, by the master's: "
                   "clocks that differ show up here.", "s"),
              *quantiles("heartbeat_sent_to_visible_seconds"), limits=alert_thresholds("clock_skew_seconds"),
              size=THIRD),
    ]  # fmt: skip


def _http() -> list[sdk.Panel]:
    requests = "fleetpulse_http_requests_total"
    errors = rate(f'{requests}{{status=~"5.."}}')
    slowest = quantile(0.99, "http_request_duration_seconds", "route")
    return [
        graph(Text("Answers by route", "Each second.", "reqps"),
              Query(f"sum by (route) ({rate(requests)})", "{{route}}"), size=THIRD, stacked=True),
        graph(Text("Answers by status", "Each second.", "reqps"),
              Query(f"sum by (status) ({rate(requests)})", "{{status}}"), size=THIRD, stacked=True),
        graph(Text("Errors", "Share of the answers with a status of 5xx.", "percentunit"),
              Query(f"({or_zero(f'sum({errors})')}) / (sum({rate(requests)}) > 0)", "5xx"),
              limits=alert_thresholds("http_error_ratio"), size=THIRD),
        graph(Text("Time of an answer, p99", "Without its sending, by route.", "s"), Query(slowest, "{{route}}"),
              size=THIRD),
        graph(Text("Scrapes", "Time of a scrape as Prometheus sees it, and of putting the text of /metrics together.",
                   "s"),
              Query(f"max({of_master('scrape_duration_seconds')})", "scrape"),
              Query(quantile(0.99, "exposition_duration_seconds"), "text, p99"),
              limits=alert_thresholds("scrape_seconds"), size=THIRD),
        graph(Text("Samples of a scrape", "Prometheus refuses a scrape with more than its sample_limit.", "short"),
              Query(f"max({of_master('scrape_samples_scraped')})", "samples"),
              limits=alert_thresholds("scrape_samples"), size=THIRD),
    ]  # fmt: skip


def _grpc() -> list[sdk.Panel]:
    calls = "fleetpulse_grpc_requests_total"
    errors = rate(calls + '{code!~"OK|CANCELLED|UNAVAILABLE|ABORTED"}')
    return [
        graph(Text("Streams", "Streams of workers that are open and registered, and active workers.", "short"),
              Query("max(fleetpulse_worker_sessions)", "streams"),
              Query('max(fleetpulse_workers{state="active"})', "active"), size=THIRD),
        graph(Text("Calls that ended", "Each second, by method and how. A stream ends when its worker leaves.", "cps"),
              Query(f"sum by (method, code) ({rate(calls)})", "{{method}} {{code}}"), size=THIRD),
        graph(Text("Errors", "Calls that ended in an error other than a lost connection, each second.", "cps"),
              Query(f"sum by (code) ({errors})", "{{code}}"), limits=alert_thresholds("grpc_error_rate"), size=THIRD),
        graph(Text("Refused streams", "Each second, by reason. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_worker_sessions_refused_total')})", "{{reason}}"),
              size=THIRD),
        graph(Text("Life of certificates", "The share that is over: of the master's, and of a connected worker's that "
                   "has the most behind it. Renewed at two thirds; empty without a CA.", "percentunit"),
              Query("max by (holder) (fleetpulse_certificate_life_used_ratio)", "{{holder}}"),
              limits=alert_thresholds("certificate_used_ratio", "certificate_nearly_expired_ratio"),
              size=THIRD, maximum=1),
    ]  # fmt: skip


def _store() -> list[sdk.Panel]:
    return [
        graph(Text("Transactions of the store", "Time of one, made durable.", "s"), *quantiles("store_commit_seconds"),
              limits=alert_thresholds("store_commit_seconds"), size=THIRD),
        heatmap(Text("Transactions, all", "How many took so long.", "s"), buckets("store_commit_seconds"), "short",
                THIRD),
        graph(Text("Failed transactions", "Each second, by why. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_store_errors_total')})", "{{reason}}"), size=THIRD),
        graph(Text("Scheduling rounds", "Time of one round in which waiting tasks were given places.", "s"),
              *quantiles("task_scheduling_round_seconds"), size=THIRD),
        graph(Text("Broadcaster", "Scheduling rounds, each second.", "cps"),
              Query(f"sum({rate('fleetpulse_task_scheduling_round_seconds_count')})", "rounds"), size=THIRD),
        alerts_table({"alertname": "FleetPulse(Master|Scrape|Sample|Http|Grpc|Store|Heartbeats|Clock|Certificate).*"},
                     THIRD, ", about the master", of_workers=False),
    ]  # fmt: skip


def _process() -> list[sdk.Panel]:
    cpu = "rate(process_cpu_seconds_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    collections = "rate(python_gc_collections_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    return [
        graph(Text("CPU", "Of one core; the hub of the master is one thread.", "percentunit"),
              Query(f"sum({cpu})", "used"), size=QUARTER),
        graph(Text("Memory", "Of the web process.", "bytes"),
              Query(f"max({of_master('process_resident_memory_bytes')})", "resident"), size=QUARTER),
        graph(Text("Open files", "Of those that the process may open; each worker needs one.", "percentunit"),
              Query(_OPEN, "open"), limits=alert_thresholds("open_files_ratio"), size=QUARTER, maximum=1),
        graph(Text("Garbage collections", "Each second, by generation.", "cps"),
              Query(f"sum by (generation) ({collections})", "generation {{generation}}"), size=QUARTER),
    ]  # fmt: skip


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
    return dashboard(
        "fleetpulse-tasks",
        "What waits and why it takes so long, what runs and where, what fails.",
        [
            Section("Now", _tasks_now()),
            Section("Flow", _task_flow()),
            Section("Waiting and running times", _task_times()),
            Section("Failures", _task_failures()),
            Section("By worker", _tasks_by_worker()),
        ],
        [search_variable()],
    )


def or_else(recorded: str, raw: str) -> str:
    """An increase by the recording rule, which begins at 0, or without it, when the first of all cannot be seen."""
    return or_zero(f"sum(increase({recorded})) or sum(increase({raw}))")


def _tasks_now() -> list[sdk.Panel]:
    def of(status: str, what: str) -> sdk.Panel:
        expr = f'max(fleetpulse_tasks{{status="{status}"}})'
        return stat_panel(Text(status.capitalize(), what, "short"), expr, BLUE_ALWAYS)

    lost = or_else(
        "fleetpulse:task_attempts_lost:total[30m]", 'fleetpulse_task_attempts_ended_total{status="lost"}[30m]'
    )
    return [
        of("queued", "Tasks that wait for a place. GET /api/tasks/ID says what each waits for."),
        of("pending",
           "Tasks that have a place and whose container is being prepared: most often, its image is pulled."),
        of("running", "Tasks whose containers run."),
        stat_panel(Text("Oldest in the queue", "How long the oldest task has waited for a place. Coloured from where "
                        "FleetPulseTaskQueueTooOld fires.", "s"),
                   "max(fleetpulse_task_oldest_queued_seconds)", alert_thresholds("queue_age_seconds")),
        stat_panel(Text("Failed, 30 minutes",
                        "Share of those that completed or failed in the last 30 minutes. Coloured from where "
                        "FleetPulseTaskFailureRatioHigh fires, if there were enough of them.", "percentunit"),
                   FAILED_SHARE.format(window="30m"), alert_thresholds("task_failure_ratio")),
        stat_panel(Text("Lost, 30 minutes", "Attempts that ended with their workers in the last 30 minutes.", "short"),
                   lost, alert_thresholds("attempts_lost")),
    ]  # fmt: skip


def _task_flow() -> list[sdk.Panel]:
    live = graph(
        Text("Live tasks", "Tasks that have not ended, by status.", "short"),
        Query('max by (status) (fleetpulse_tasks{status=~"queued|pending|running"})', "{{status}}"),
        stacked=True,
    )
    ended = graph(
        Text("Ended", "Tasks that ended, each second, by how.", "cps"),
        Query(f"sum by (status) ({rate('fleetpulse_tasks_finished_total')})", "{{status}}"),
        stacked=True,
    )
    return [
        live, ended,
        graph(Text("Queue",
                   "Age of the oldest task that waits for a place; 0 when none does. The line is the alert's.", "s"),
              Query("max(fleetpulse_task_oldest_queued_seconds)", "oldest"),
              limits=alert_thresholds("queue_age_seconds"), size=THIRD),
        graph(Text("All ended tasks in the store", "By how they ended, until their retention is over.", "short"),
              Query('max by (status) (fleetpulse_tasks{status=~"completed|failed|cancelled"})', "{{status}}"),
              size=THIRD),
        state_timeline(Text("Rescheduling held",
                            "Held back while so much of the fleet is gone at once that the master's own network "
                            "is the more likely cause: attempts of lost workers are not given up meanwhile.", "short"),
                       Query("max(fleetpulse_task_rescheduling_held)", "rescheduling"),
                       limits=ORANGE_FROM_1, names=_HELD, size=THIRD),
    ]  # fmt: skip


def _task_times() -> list[sdk.Panel]:
    waits = Text("Waits", "From when a task could have been placed until it was.", "s")
    runs = Text("Run times", "From when a container ran until it had ended.", "s")
    rounds = Text("Scheduling rounds", "Time of one round in which waiting tasks were given places.", "s")
    # By Little's law, as the alert has it: how many are pending, by how many become so in a second.
    pending = (
        'sum(avg_over_time(fleetpulse_tasks{status="pending"}[30m]))'
        " / (sum(rate(fleetpulse_task_queue_wait_seconds_count[30m])) > 0)"
    )
    return [
        graph(waits, *quantiles("task_queue_wait_seconds"), size=THIRD),
        graph(runs, *quantiles("task_run_seconds"), size=THIRD),
        graph(rounds, *quantiles("task_scheduling_round_seconds"), size=THIRD),
        heatmap(Text("Waits, all", "How many tasks were placed after so long a wait.", "s"),
                buckets("task_queue_wait_seconds"), "short", THIRD),
        heatmap(Text("Run times, all", "How many attempts ran so long.", "s"), buckets("task_run_seconds"), "short",
                THIRD),
        graph(Text("Pending", "Mean time to prepare a container, in the 30 minutes before. The line is the alert's.",
                   "s"),
              Query(pending, "mean"), limits=alert_thresholds("pending_seconds"), size=THIRD),
    ]  # fmt: skip


def _task_failures() -> list[sdk.Panel]:
    docker = or_else("fleetpulse:task_attempts_docker_failed:total[15m]", f"{_BY_DOCKER}[15m]")
    ended = rate("fleetpulse_task_attempts_ended_total")
    not_well = rate('fleetpulse_task_attempts_ended_total{status=~"failed|lost"}')
    why = f"topk({ROWS}, sum by (status, reason) (increase(fleetpulse_task_attempts_ended_total[$__range])))"
    return [
        graph(Text("Failed share",
                   "Of the tasks that completed or failed in the 30 minutes before. The line is the alert's.",
                   "percentunit"),
              Query(FAILED_SHARE.format(window="30m"), "failed"),
              limits=alert_thresholds("task_failure_ratio"), size=THIRD, maximum=1),
        graph(Text("Attempts", "Attempts that ended, each second, by how.", "cps"),
              Query(f"sum by (status) ({ended})", "{{status}}"), size=THIRD, stacked=True),
        graph(Text("Why attempts failed or were lost", "Attempts, each second, by reason.", "cps"),
              Query(f"sum by (status, reason) ({not_well})", "{{status}}: {{reason}}"), size=THIRD, stacked=True),
        graph(Text("Failed by Docker",
                   "Attempts in the 15 minutes before that failed because of the machine or its engine.",
                   "short"), Query(docker, "failed"), limits=alert_thresholds("docker_failures"), size=THIRD),
        table(Text("Attempts by how and why they ended",
                   "In the whole time range; /api/tasks/ID has the attempts of one task.", "short"),
              Column("How", "status"), Column("Why", "reason"), Column("Attempts", why, "short"), size=THIRD,
              sort="Attempts"),
        graph(Text("Stale reports",
                   "Reports and logs about attempts that were not the worker's any more, each second.", "cps"),
              Query(f"sum({rate('fleetpulse_task_reports_stale_total')})", "stale"),
              limits=alert_thresholds("stale_reports_rate"), size=THIRD),
        alerts_table({"alertname": "FleetPulse(Task|Docker).*"}, WIDE, ", about tasks", of_workers=False),
    ]  # fmt: skip


def _tasks_by_worker() -> list[sdk.Panel]:
    share = f"{by_worker(MATCHING('allocated_cpu_cores'))} / {by_worker(MATCHING('cpu_logical_cores'))}"

    cpu = f"max by (worker_id, task_id) ({MATCHING('task_cpu_usage_ratio')})"
    busiest = f"topk({ROWS}, {cpu})"
    memory = f"max by (worker_id, task_id) ({MATCHING('task_memory_used_bytes')}) and on (worker_id, task_id) {busiest}"
    return [
        graph(Text("Running tasks", "The ten workers that run most at the end of the time range.", "short"),
              Query(top(lambda at: f"{MATCHING('running_tasks')}{at}"), "{{worker_id}}"),
              per_worker=True),
        bar_gauge(Text("Promised CPU", "Share of a worker's cores that is promised to tasks, the ten fullest now.",
                       "percentunit"),
                  Query(f"topk({TOP}, {share})", "{{worker_id}}"), maximum=1),
        table(Text("Workers by running tasks", f"The {ROWS} that run most, with what is promised.", "short"), WORKER,
              Column("Tasks", f"topk({ROWS}, {by_worker(MATCHING('running_tasks'))})", "short"),
              Column("Cores", _beside("allocated_cpu_cores"), "short"),
              Column("Memory", _beside("allocated_memory_bytes"), "bytes"),
              Column("GPUs", _beside("allocated_gpus"), "short"), size=HALF, sort="Tasks"),
        table(Text("Running tasks by CPU", f"The {ROWS} that use most. CPU is of one core: 200 % is two cores.",
                   "short"),
              Column("Task", "task_id"), WORKER, Column("CPU", busiest, "percentunit"),
              Column("Memory", memory, "bytes"),
              size=HALF, sort="CPU"),
    ]  # fmt: skip


def _beside(name: str) -> str:
    """A reading of the workers in the table."""
    return f"{by_worker(MATCHING(name))} and on (worker_id) topk({ROWS}, {by_worker(MATCHING('running_tasks'))})"
