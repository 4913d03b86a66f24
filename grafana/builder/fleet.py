"""The Fleet dashboard: is all well? who is not? what is used, and what is free?"""

from collections.abc import Callable

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.dashboard import Section, dashboard, search_variable
from grafana.builder.panels import (
    GREY_ALWAYS,
    HALF,
    ORANGE_FROM_1,
    RED_FROM_1,
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
    stat_panel,
    table,
)
from grafana.builder.queries import MATCHING, ROWS, TOP, Query, by_worker, distribution, or_zero, rate, top, with_info

_UP = MATCHING("up")
_CPU = by_worker(MATCHING("cpu_usage_ratio"))
_MEMORY = MATCHING.recorded("worker_memory_used:ratio")
_DISK = MATCHING.recorded("worker_filesystem_used:ratio")
_CORES_USED = f"sum({MATCHING('cpu_usage_ratio')} * {MATCHING('cpu_logical_cores')})"
_SEEN_INFO = "last_over_time(fleetpulse_worker_info[1d])"
_INFO = {"info": "fleetpulse_worker_info", "on": "worker_id", "labels": "hostname, version"}


def fleet() -> sdk.Dashboard:
    return dashboard(
        "fleetpulse-fleet",
        "Is all well? Who is not? What is used, and what is free? Sums, distributions and the few that stand out.",
        [
            Section("Is all well?", _well()),
            Section("Who is not?", [alerts_table({}, HALF, ", of workers, tasks and the master"), _silent()]),
            Section("Capacity: used, promised to tasks, there", _capacity()),
            Section("All workers", _all()),
            Section("Those that stand out", _outstanding()),
        ],
        [search_variable()],
    )


def _well() -> list[sdk.Panel]:
    # As the alert counts them.
    down = f"count({_UP} == 0 unless on (worker_id) {MATCHING('draining')} == 1)"
    return [
        stat_panel(Text("Active", "Workers that beat.", "short"), f"sum({_UP})"),
        stat_panel(Text("Inactive", "Workers that have been silent for the inactivity timeout and are not drained.",
                        "short"),
                   or_zero(down), RED_FROM_1),
        stat_panel(Text("Gone",
                        "Share of the known workers that are inactive and not drained. Coloured from where "
                        "FleetPulseFleetPartlyGone fires, if they are more than two.", "percentunit"),
                   f"({or_zero(down)}) / count({_UP})", alert_thresholds("fleet_gone_ratio")),
        stat_panel(Text("Take no tasks", "Workers that are drained or cannot run tasks.", "short"),
                   or_zero(f"count({MATCHING('schedulable')} == 0)"), ORANGE_FROM_1),
        stat_panel(Text("Alerts", "Alerts of FleetPulse that fire, whomever they are about.", "short"),
                   or_zero('count(ALERTS{alertname=~"FleetPulse.+", alertstate="firing"})'), RED_FROM_1),
        stat_panel(Text("Oldest in the queue", "How long the oldest task has waited for a place. Coloured from where "
                        "FleetPulseTaskQueueTooOld fires.", "s"),
                   "max(fleetpulse_task_oldest_queued_seconds)", alert_thresholds("queue_age_seconds")),
    ]  # fmt: skip


def _silent() -> sdk.Panel:
    since = by_worker(MATCHING("last_heartbeat_timestamp_seconds"))
    silent = f"bottomk({ROWS}, (time() - {since}) and on (worker_id) {_UP} == 0)"
    named = with_info(silent, _SEEN_INFO, "worker_id", "hostname, version")
    text = Text(
        "Inactive workers",
        f"Who is inactive, the {ROWS} that were lost last; a click on one shows what it did before. Host name and "
        "version are those of the last day.",
        "s",
    )
    columns = (
        WORKER,
        Column("Host", "hostname"),
        Column("Version", "version"),
        Column("Silent for", named, "s", limits=RED_FROM_1),
        Column("Drained", f"{by_worker(MATCHING('draining'))} and on (worker_id) ({silent})", "bool_yes_no"),
    )
    return table(text, *columns, size=HALF)


def _capacity() -> list[sdk.Panel]:
    def three(title: str, unit: str, used: str, promised: str, there: str) -> sdk.Panel:
        text = Text(title, "Of active workers: in use, promised to tasks, and what there is.", unit)
        named = (("used", used), ("promised", promised), ("there is", there))
        return graph(text, *(Query(expr, name) for name, expr in named), size=THIRD)

    return [
        three("CPU cores", "short", _CORES_USED, total("allocated_cpu_cores"), total("cpu_logical_cores")),
        three("Memory", "bytes", total("memory_used_bytes"), total("allocated_memory_bytes"),
              total("memory_size_bytes")),
        three("GPUs", "short", total("gpu_utilization_ratio"), total("allocated_gpus"),
              f"count({MATCHING('gpu_memory_size_bytes')})"),
        _used(),
        _free(),
        graph(Text("Workers", "Known workers, by whether they are active.", "short"),
              Query(f"sum({_UP})", "active"), Query(or_zero(f"count({_UP} == 0)"), "inactive"), size=THIRD,
              stacked=True),
    ]  # fmt: skip


def total(name: str) -> str:
    """The sum of a metric over the fleet."""
    return f"sum({MATCHING(name)})"


def _used() -> sdk.Panel:
    shares = {
        "CPU": f"{_CORES_USED} / {total('cpu_logical_cores')}",
        "Memory": f"{total('memory_used_bytes')} / {total('memory_size_bytes')}",
        "Filesystems": f"{total('filesystem_used_bytes')} / {total('filesystem_size_bytes')}",
        "GPUs": f"avg({MATCHING('gpu_utilization_ratio')})",
        "GPU memory": f"{total('gpu_memory_used_bytes')} / {total('gpu_memory_size_bytes')}",
    }
    text = Text("Used now", "Share of what all active workers have that is in use.", "percentunit")
    return bar_gauge(text, *(Query(expr, name) for name, expr in shares.items()), size=THIRD, maximum=1)


def _free() -> sdk.Panel:
    def free(size: str, promised: str) -> str:
        unpromised = f"{size} - {by_worker(MATCHING(promised))}"
        return f"sum({unpromised} and on (worker_id) {by_worker(MATCHING('schedulable'))} == 1) / sum({size})"

    gpus = f"count by (worker_id) ({MATCHING('gpu_memory_size_bytes')})"
    shares = {
        "CPU": free(by_worker(MATCHING("cpu_logical_cores")), "allocated_cpu_cores"),
        "Memory": free(by_worker(MATCHING("memory_size_bytes")), "allocated_memory_bytes"),
        "GPUs": free(gpus, "allocated_gpus"),
    }
    text = Text(
        "Free for tasks now",
        "Share of what all active workers have that is not promised to a task, on workers that take tasks.",
        "percentunit",
    )
    return bar_gauge(text, *(Query(expr, name) for name, expr in shares.items()), size=THIRD, maximum=1)


def _all() -> list[sdk.Panel]:
    def heat(title: str, ratio: str) -> sdk.Panel:
        text = Text(
            title,
            "How many workers are in each tenth, at each time. A worker that falls silent leaves it.",
            "percentunit",
        )
        return heatmap(text, distribution(ratio), "short", size=HALF)

    return [heat("CPU of all workers", MATCHING("cpu_usage_ratio")), heat("Memory of all workers", _MEMORY), _table()]


def _table() -> sdk.Panel:
    busiest = f"topk({ROWS}, {_CPU})"

    def beside(expr: str) -> str:
        return f"{expr} and on (worker_id) {busiest}"

    text = Text("Busiest workers", f"The {ROWS} that use most of their CPU, with their other readings.", "short")
    return table(
        text,
        WORKER,
        Column("Host", "hostname"),
        Column("Version", "version"),
        Column("CPU", with_info(busiest, **_INFO), "percentunit", limits=alert_thresholds("cpu_ratio"), share=True),
        Column("Memory", beside(by_worker(_MEMORY)), "percentunit",
               limits=alert_thresholds("memory_ratio"), share=True),
        Column("Fullest disk", beside(by_worker(_DISK)), "percentunit",
               limits=alert_thresholds("filesystem_ratio", "filesystem_full_ratio"), share=True),
        Column("Load by core", beside(f"{by_worker(MATCHING('load5'))} / {by_worker(MATCHING('cpu_logical_cores'))}"),
               "none", limits=alert_thresholds("load_per_core")),
        Column("Tasks", beside(by_worker(MATCHING("running_tasks"))), "none", limits=GREY_ALWAYS),
        size=WIDE,
        sort="CPU",
    )  # fmt: skip


def _outstanding() -> list[sdk.Panel]:
    def ten(title: str, unit: str, what: str, make: Callable[[str], str], *limits: str) -> sdk.Panel:
        text = Text(title, f"The ten workers with most of it at the end of the time range: {what}.", unit)
        most = 1 if unit == "percentunit" else None
        query = Query(top(make), "{{worker_id}}")
        return graph(text, query, limits=alert_thresholds(*limits), size=THIRD, maximum=most, per_worker=True)

    odd = MATCHING.recorded("worker_reading:own_z")
    turns = f"topk({TOP}, max by (worker_id) (changes({_UP}[30m])) > 0)"
    return [
        ten("CPU", "percentunit", "share of all cores", lambda at: f"{MATCHING('cpu_usage_ratio')}{at}", "cpu_ratio"),
        ten("Memory", "percentunit", "share of the memory's size", lambda at: f"{_MEMORY}{at}", "memory_ratio"),
        ten("Fullest filesystem", "percentunit", "used share of the fullest", lambda at: f"{_DISK}{at}",
            "filesystem_ratio", "filesystem_full_ratio"),
        ten("Missed heartbeats", "cps", "heartbeats that never arrived, each second",
            lambda at: rate(MATCHING("heartbeats_missed_total"), at), "heartbeats_missed_rate"),
        bar_gauge(Text("Flapping", "Turns of active and inactive in the last 30 minutes. Empty is good.", "short"),
                  Query(turns, "{{worker_id}}"), limits=alert_thresholds("worker_flaps"), size=THIRD),
        graph(Text("Not as usual",
                   "How far a reading is from the worker's own last hour, in standard deviations: the ten "
                   "farthest at the end of the time range. It takes an hour, and the rules of monitoring/.", "short"),
              Query(top(lambda at: f"abs({odd}{at})", "worker_id, reading"), "{{worker_id}} {{reading}}"),
              limits=alert_thresholds("anomaly_own_z"), size=THIRD, per_worker=True),
    ]  # fmt: skip
