"""The Master dashboard and the Tasks dashboard."""

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
        "The master itself: heartbeats, latency, HTTP, gRPC, the store, the scheduler, the process.",
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
        label_panel(Text("Version", "FleetPulse version of the master.", "short"),
                    Query("max by (version) (fleetpulse_build_info)", "{{version}}")),
        stat_panel(Text("Up for", "Time since its web process was started.", "s"), f"time() - max({_STARTED})"),
        stat_panel(Text("Restarts, 30 minutes", "Starts of the web process after the first. Coloured from the "
                        "threshold of FleetPulseMasterRestarting.", "short"),
                   "max(changes(process_start_time_seconds[30m]) and on (instance, job) fleetpulse_build_info)",
                   alert_thresholds("master_restarts")),
        stat_panel(Text("Heartbeats", "Accepted per second.", "cps"),
                   f"sum({rate('fleetpulse_heartbeats_received_total')})"),
        stat_panel(Text("Time to be visible, p99", "From the receipt of a heartbeat until REST and /metrics show it.",
                        "s"),
                   quantile(0.99, "heartbeat_receipt_to_visible_seconds"),
                   alert_thresholds("heartbeat_visible_seconds")),
        stat_panel(Text("Open files", "Share of the files that the process may open; each worker needs one.",
                        "percentunit"),
                   _OPEN, alert_thresholds("open_files_ratio")),
    ]  # fmt: skip


def _heartbeats() -> list[sdk.Panel]:
    received, dropped = (rate(f"fleetpulse_heartbeats_{what}_total") for what in ("received", "dropped"))
    return [
        graph(Text("Accepted", "Heartbeats per second.", "cps"), Query(f"sum({received})", "received"), size=THIRD),
        graph(Text("Dropped share", "Share of the accepted heartbeats that a newer one replaced in a full queue.",
                   "percentunit"),
              Query(f"sum({dropped}) / (sum({received}) > 0)", "dropped"),
              limits=alert_thresholds("heartbeats_dropped_ratio"), size=THIRD),
        graph(Text("Rejected",
                   "Rejected heartbeats per second, by reason. Empty if there was none.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_heartbeats_rejected_total')})", "{{reason}}"),
              limits=alert_thresholds("heartbeats_rejected_rate"), size=THIRD),
        graph(Text("Receipt to visible",
                   "From the receipt of a heartbeat until REST and /metrics show it.", "s"),
              *quantiles("heartbeat_receipt_to_visible_seconds"), limits=alert_thresholds("heartbeat_visible_seconds"),
              size=THIRD),
        heatmap(Text("Receipt to visible, all", "The number of heartbeats by this time.", "s"),
                buckets("heartbeat_receipt_to_visible_seconds"), "short", THIRD),
        graph(Text("Sent to visible",
                   "From the sending of a heartbeat, by the worker's clock, until it is visible, by the master's: "
                   "different clocks are visible here.", "s"),
              *quantiles("heartbeat_sent_to_visible_seconds"), limits=alert_thresholds("clock_skew_seconds"),
              size=THIRD),
    ]  # fmt: skip


def _http() -> list[sdk.Panel]:
    requests = "fleetpulse_http_requests_total"
    errors = rate(f'{requests}{{status=~"5.."}}')
    slowest = quantile(0.99, "http_request_duration_seconds", "route")
    return [
        graph(Text("Responses by route", "Per second.", "reqps"),
              Query(f"sum by (route) ({rate(requests)})", "{{route}}"), size=THIRD, stacked=True),
        graph(Text("Responses by status", "Per second.", "reqps"),
              Query(f"sum by (status) ({rate(requests)})", "{{status}}"), size=THIRD, stacked=True),
        graph(Text("Errors", "Share of the responses with status 5xx.", "percentunit"),
              Query(f"({or_zero(f'sum({errors})')}) / (sum({rate(requests)}) > 0)", "5xx"),
              limits=alert_thresholds("http_error_ratio"), size=THIRD),
        graph(Text("Response time, p99", "By route, without sending the response.", "s"), Query(slowest, "{{route}}"),
              size=THIRD),
        graph(Text("Scrapes", "Duration of a scrape in Prometheus, and of building the text of /metrics.",
                   "s"),
              Query(f"max({of_master('scrape_duration_seconds')})", "scrape"),
              Query(quantile(0.99, "exposition_duration_seconds"), "text, p99"),
              limits=alert_thresholds("scrape_seconds"), size=THIRD),
        graph(Text("Samples of a scrape", "Prometheus rejects a scrape with more than its sample_limit.", "short"),
              Query(f"max({of_master('scrape_samples_scraped')})", "samples"),
              limits=alert_thresholds("scrape_samples"), size=THIRD),
    ]  # fmt: skip


def _grpc() -> list[sdk.Panel]:
    calls = "fleetpulse_grpc_requests_total"
    errors = rate(calls + '{code!~"OK|CANCELLED|UNAVAILABLE|ABORTED"}')
    return [
        graph(Text("Streams", "Registered streams of workers, and active workers.", "short"),
              Query("max(fleetpulse_worker_sessions)", "streams"),
              Query('max(fleetpulse_workers{state="active"})', "active"), size=THIRD),
        graph(Text("Completed calls", "Per second, by method and code. A stream ends when its worker disconnects.",
                   "cps"),
              Query(f"sum by (method, code) ({rate(calls)})", "{{method}} {{code}}"), size=THIRD),
        graph(Text("Errors", "Calls per second that failed, other than by a lost connection.", "cps"),
              Query(f"sum by (code) ({errors})", "{{code}}"), limits=alert_thresholds("grpc_error_rate"), size=THIRD),
        graph(Text("Refused streams", "Per second, by reason. Empty if there was none.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_worker_sessions_refused_total')})", "{{reason}}"),
              size=THIRD),
        graph(Text("Used lifetime of certificates", "Of the master, and the highest of the connected workers. "
                   "Certificates are renewed at two thirds. Empty without a CA.", "percentunit"),
              Query("max by (holder) (fleetpulse_certificate_life_used_ratio)", "{{holder}}"),
              limits=alert_thresholds("certificate_used_ratio", "certificate_nearly_expired_ratio"),
              size=THIRD, maximum=1),
    ]  # fmt: skip


def _store() -> list[sdk.Panel]:
    return [
        graph(Text("Transactions of the store", "Duration of a durable transaction.", "s"),
              *quantiles("store_commit_seconds"),
              limits=alert_thresholds("store_commit_seconds"), size=THIRD),
        heatmap(Text("Transactions, all", "The number of transactions by duration.", "s"),
                buckets("store_commit_seconds"), "short",
                THIRD),
        graph(Text("Failed transactions", "Per second, by reason. Empty if there was none.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_store_errors_total')})", "{{reason}}"), size=THIRD),
        graph(Text("Scheduling rounds", "Duration of a round that places queued tasks.", "s"),
              *quantiles("task_scheduling_round_seconds"), size=THIRD),
        graph(Text("Rate of scheduling rounds", "Per second.", "cps"),
              Query(f"sum({rate('fleetpulse_task_scheduling_round_seconds_count')})", "rounds"), size=THIRD),
        alerts_table({"alertname": "FleetPulse(Master|Scrape|Sample|Http|Grpc|Store|Heartbeats|Clock|Certificate).*"},
                     THIRD, ", about the master", of_workers=False),
    ]  # fmt: skip


def _process() -> list[sdk.Panel]:
    cpu = "rate(process_cpu_seconds_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    collections = "rate(python_gc_collections_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    return [
        graph(Text("CPU", "Share of one core; the event loop of the master is one thread.", "percentunit"),
              Query(f"sum({cpu})", "used"), size=QUARTER),
        graph(Text("Memory", "Of the web process.", "bytes"),
              Query(f"max({of_master('process_resident_memory_bytes')})", "resident"), size=QUARTER),
        graph(Text("Open files", "Share of the files that the process may open; each worker needs one.", "percentunit"),
              Query(_OPEN, "open"), limits=alert_thresholds("open_files_ratio"), size=QUARTER, maximum=1),
        graph(Text("Garbage collections", "Per second, by generation.", "cps"),
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
        "The queue and its delays, running tasks by worker, and failures.",
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
    """The increase of the recording rule or, without the rule, of the raw counter, which misses its first value."""
    return or_zero(f"sum(increase({recorded})) or sum(increase({raw}))")


def _tasks_now() -> list[sdk.Panel]:
    def of(status: str, what: str) -> sdk.Panel:
        expr = f'max(fleetpulse_tasks{{status="{status}"}})'
        return stat_panel(Text(status.capitalize(), what, "short"), expr, BLUE_ALWAYS)

    lost = or_else(
        "fleetpulse:task_attempts_lost:total[30m]", 'fleetpulse_task_attempts_ended_total{status="lost"}[30m]'
    )
    return [
        of("queued", "Tasks that wait for a worker. GET /api/tasks/ID has the reason for each."),
        of("pending",
           "Tasks on a worker whose container is being prepared, usually by an image pull."),
        of("running", "Tasks whose containers run."),
        stat_panel(Text("Oldest queued task", "Time in the queue. Coloured from the threshold of "
                        "FleetPulseTaskQueueTooOld.", "s"),
                   "max(fleetpulse_task_oldest_queued_seconds)", alert_thresholds("queue_age_seconds")),
        stat_panel(Text("Failed, 30 minutes",
                        "Share of the tasks that completed or failed in the last 30 minutes. Coloured from the "
                        "threshold of FleetPulseTaskFailureRatioHigh, which also requires a number of failures.",
                        "percentunit"),
                   FAILED_SHARE.format(window="30m"), alert_thresholds("task_failure_ratio")),
        stat_panel(Text("Lost, 30 minutes", "Attempts lost with their workers in the last 30 minutes.", "short"),
                   lost, alert_thresholds("attempts_lost")),
    ]  # fmt: skip


def _task_flow() -> list[sdk.Panel]:
    live = graph(
        Text("Live tasks", "Tasks that have not ended, by status.", "short"),
        Query('max by (status) (fleetpulse_tasks{status=~"queued|pending|running"})', "{{status}}"),
        stacked=True,
    )
    ended = graph(
        Text("Ended", "Ended tasks per second, by status.", "cps"),
        Query(f"sum by (status) ({rate('fleetpulse_tasks_finished_total')})", "{{status}}"),
        stacked=True,
    )
    return [
        live, ended,
        graph(Text("Queue",
                   "Age of the oldest queued task; 0 without one. The line is the threshold of the alert.", "s"),
              Query("max(fleetpulse_task_oldest_queued_seconds)", "oldest"),
              limits=alert_thresholds("queue_age_seconds"), size=THIRD),
        graph(Text("All ended tasks in the store", "By status, until the end of their retention.", "short"),
              Query('max by (status) (fleetpulse_tasks{status=~"completed|failed|cancelled"})', "{{status}}"),
              size=THIRD),
        state_timeline(Text("Rescheduling held",
                            "Held while so many workers are inactive at once that the master's own network is the "
                            "more likely cause. Meanwhile the attempts of these workers are not lost.", "short"),
                       Query("max(fleetpulse_task_rescheduling_held)", "rescheduling"),
                       limits=ORANGE_FROM_1, names=_HELD, size=THIRD),
    ]  # fmt: skip


def _task_times() -> list[sdk.Panel]:
    waits = Text("Queue time", "From when a task can be placed until it is placed.", "s")
    runs = Text("Run times", "From the start to the end of a container.", "s")
    rounds = Text("Scheduling rounds", "Duration of a round that places queued tasks.", "s")
    # By Little's law, as in the alert: the mean number of pending tasks divided by the tasks placed per second.
    pending = (
        'sum(avg_over_time(fleetpulse_tasks{status="pending"}[30m]))'
        " / (sum(rate(fleetpulse_task_queue_wait_seconds_count[30m])) > 0)"
    )
    return [
        graph(waits, *quantiles("task_queue_wait_seconds"), size=THIRD),
        graph(runs, *quantiles("task_run_seconds"), size=THIRD),
        graph(rounds, *quantiles("task_scheduling_round_seconds"), size=THIRD),
        heatmap(Text("Queue time, all", "The number of tasks by queue time.", "s"),
                buckets("task_queue_wait_seconds"), "short", THIRD),
        heatmap(Text("Run times, all", "The number of attempts by run time.", "s"), buckets("task_run_seconds"),
                "short",
                THIRD),
        graph(Text("Pending",
                   "Mean time to prepare a container over 30 minutes. The line is the threshold of the alert.",
                   "s"),
              Query(pending, "mean"), limits=alert_thresholds("pending_seconds"), size=THIRD),
    ]  # fmt: skip


def _task_failures() -> list[sdk.Panel]:
    docker = or_else("fleetpulse:task_attempts_docker_failed:total[15m]", f"{_BY_DOCKER}[15m]")
    ended = rate("fleetpulse_task_attempts_ended_total")
    unsuccessful = rate('fleetpulse_task_attempts_ended_total{status=~"failed|lost"}')
    why = f"topk({ROWS}, sum by (status, reason) (increase(fleetpulse_task_attempts_ended_total[$__range])))"
    return [
        graph(Text("Failed share",
                   "Of the tasks that completed or failed in 30 minutes. The line is the threshold of the alert.",
                   "percentunit"),
              Query(FAILED_SHARE.format(window="30m"), "failed"),
              limits=alert_thresholds("task_failure_ratio"), size=THIRD, maximum=1),
        graph(Text("Attempts", "Ended attempts per second, by status.", "cps"),
              Query(f"sum by (status) ({ended})", "{{status}}"), size=THIRD, stacked=True),
        graph(Text("Failed and lost attempts", "Per second, by reason.", "cps"),
              Query(f"sum by (status, reason) ({unsuccessful})", "{{status}}: {{reason}}"), size=THIRD, stacked=True),
        graph(Text("Failed by Docker",
                   "Attempts that failed in 15 minutes because of the machine or its Docker Engine.",
                   "short"), Query(docker, "failed"), limits=alert_thresholds("docker_failures"), size=THIRD),
        table(Text("Attempts by status and reason",
                   "In the whole time range; /api/tasks/ID has the attempts of one task.", "short"),
              Column("Status", "status"), Column("Reason", "reason"), Column("Attempts", why, "short"), size=THIRD,
              sort="Attempts"),
        graph(Text("Stale reports",
                   "Reports and logs per second about attempts that are not on the reporting worker.", "cps"),
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
        graph(Text("Running tasks", "The ten workers with the most tasks at the end of the time range.", "short"),
              Query(top(lambda at: f"{MATCHING('running_tasks')}{at}"), "{{worker_id}}"),
              per_worker=True),
        bar_gauge(Text("Allocated CPU", "Share of a worker's cores that is allocated to tasks; the ten highest now.",
                       "percentunit"),
                  Query(f"topk({TOP}, {share})", "{{worker_id}}"), maximum=1),
        table(Text("Workers by running tasks",
                   f"The {ROWS} workers with the most tasks, with their allocated resources.", "short"), WORKER,
              Column("Tasks", f"topk({ROWS}, {by_worker(MATCHING('running_tasks'))})", "short"),
              Column("Cores", _beside("allocated_cpu_cores"), "short"),
              Column("Memory", _beside("allocated_memory_bytes"), "bytes"),
              Column("GPUs", _beside("allocated_gpus"), "short"), size=HALF, sort="Tasks"),
        table(Text("Running tasks by CPU", f"The {ROWS} tasks with the highest CPU usage. 100 % is one core.",
                   "short"),
              Column("Task", "task_id"), WORKER, Column("CPU", busiest, "percentunit"),
              Column("Memory", memory, "bytes"),
              size=HALF, sort="CPU"),
    ]  # fmt: skip


def _beside(name: str) -> str:
    """A reading of the workers in the table."""
    return f"{by_worker(MATCHING(name))} and on (worker_id) topk({ROWS}, {by_worker(MATCHING('running_tasks'))})"
