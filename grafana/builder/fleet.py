"""The Fleet dashboard: health, capacity and outliers."""

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
_FILESYSTEM_SPACE = (
    f"{MATCHING('filesystem_used_bytes')} + {MATCHING('filesystem_available_bytes')}"
    f" or {MATCHING('filesystem_size_bytes')}"
)
_DISK = MATCHING.recorded("worker_filesystem_used:ratio")
_CORES_USED = f"sum({MATCHING('cpu_usage_ratio')} * {MATCHING('cpu_logical_cores')})"
_LAST_INFO = "last_over_time(fleetpulse_worker_info[1d])"
_INFO = {"info": "fleetpulse_worker_info", "on": "worker_id", "labels": "hostname, version"}


def fleet() -> sdk.Dashboard:
    return dashboard(
        "fleetpulse-fleet",
        "The whole fleet: health, capacity, distributions and outliers.",
        [
            Section("Health", _health()),
            Section("Problems", [alerts_table({}, HALF, ", of workers, tasks and the master"), _inactive()]),
            Section("Capacity", _capacity()),
            Section("All workers", _all()),
            Section("Outliers", _outliers()),
        ],
        [search_variable()],
    )


def _health() -> list[sdk.Panel]:
    # As in the alert FleetPulseFleetPartlyGone.
    down = f"count({_UP} == 0 unless on (worker_id) {MATCHING('draining')} == 1)"
    return [
        stat_panel(Text("Active", "Workers that send heartbeats.", "short"), f"sum({_UP})"),
        stat_panel(Text("Inactive", "Workers without a heartbeat for the inactivity timeout that are not drained.",
                        "short"),
                   or_zero(down), RED_FROM_1),
        stat_panel(Text("Inactive share",
                        "Share of the known workers that are inactive and not drained. Coloured from the "
                        "threshold of FleetPulseFleetPartlyGone, which also requires more than two workers.",
                        "percentunit"),
                   f"({or_zero(down)}) / count({_UP})", alert_thresholds("fleet_gone_ratio")),
        stat_panel(Text("Take no tasks", "Workers that are drained or cannot run tasks.", "short"),
                   or_zero(f"count({MATCHING('schedulable')} == 0)"), ORANGE_FROM_1),
        stat_panel(Text("Alerts", "Firing alerts of FleetPulse.", "short"),
                   or_zero('count(ALERTS{alertname=~"FleetPulse.+", alertstate="firing"})'), RED_FROM_1),
        stat_panel(Text("Oldest queued task", "Time in the queue. Coloured from the threshold of "
                        "FleetPulseTaskQueueTooOld.", "s"),
                   "max(fleetpulse_task_oldest_queued_seconds)", alert_thresholds("queue_age_seconds")),
    ]  # fmt: skip


def _inactive() -> sdk.Panel:
    since = by_worker(MATCHING("last_heartbeat_timestamp_seconds"))
    silent = f"bottomk({ROWS}, (time() - {since}) and on (worker_id) {_UP} == 0)"
    named = with_info(silent, _LAST_INFO, "worker_id", "hostname, version")
    text = Text(
        "Inactive workers",
        f"The last {ROWS} workers that became inactive; a click on one opens its dashboard. Host name and version "
        "are from the last day.",
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
    def capacity_graph(title: str, unit: str, used: str, allocated: str, total: str) -> sdk.Panel:
        text = Text(title, "Of active workers: used, allocated to tasks, and total.", unit)
        named = (("used", used), ("allocated", allocated), ("total", total))
        return graph(text, *(Query(expr, name) for name, expr in named), size=THIRD)

    return [
        capacity_graph("CPU cores", "short", _CORES_USED, sum_of("allocated_cpu_cores"), sum_of("cpu_logical_cores")),
        capacity_graph("Memory", "bytes", sum_of("memory_used_bytes"), sum_of("allocated_memory_bytes"),
              sum_of("memory_size_bytes")),
        capacity_graph("GPUs", "short", sum_of("gpu_utilization_ratio"), sum_of("allocated_gpus"),
              f"count({MATCHING('gpu_memory_size_bytes')})"),
        _used(),
        _free(),
        graph(Text("Workers", "Known workers, by whether they are active.", "short"),
              Query(f"sum({_UP})", "active"), Query(or_zero(f"count({_UP} == 0)"), "inactive"), size=THIRD,
              stacked=True),
    ]  # fmt: skip


def sum_of(name: str) -> str:
    """The sum of a metric over the fleet."""
    return f"sum({MATCHING(name)})"


def _used() -> sdk.Panel:
    shares = {
        "CPU": f"{_CORES_USED} / {sum_of('cpu_logical_cores')}",
        "Memory": f"{sum_of('memory_used_bytes')} / {sum_of('memory_size_bytes')}",
        "Filesystems": f"{sum_of('filesystem_used_bytes')} / sum({_FILESYSTEM_SPACE})",
        "GPUs": f"avg({MATCHING('gpu_utilization_ratio')})",
        "GPU memory": f"{sum_of('gpu_memory_used_bytes')} / {sum_of('gpu_memory_size_bytes')}",
    }
    text = Text("Used now", "Share of the resources of all active workers that is in use.", "percentunit")
    return bar_gauge(text, *(Query(expr, name) for name, expr in shares.items()), size=THIRD, maximum=1)


def _free() -> sdk.Panel:
    def free(size: str, allocated: str) -> str:
        unallocated = f"{size} - {by_worker(MATCHING(allocated))}"
        return f"sum({unallocated} and on (worker_id) {by_worker(MATCHING('schedulable'))} == 1) / sum({size})"

    gpus = f"count by (worker_id) ({MATCHING('gpu_memory_size_bytes')})"
    shares = {
        "CPU": free(by_worker(MATCHING("cpu_logical_cores")), "allocated_cpu_cores"),
        "Memory": free(by_worker(MATCHING("memory_size_bytes")), "allocated_memory_bytes"),
        "GPUs": free(gpus, "allocated_gpus"),
    }
    text = Text(
        "Free for tasks now",
        "Share of the resources of all active workers that is not allocated to tasks, on workers that take tasks.",
        "percentunit",
    )
    return bar_gauge(text, *(Query(expr, name) for name, expr in shares.items()), size=THIRD, maximum=1)


def _all() -> list[sdk.Panel]:
    def heat(title: str, ratio: str) -> sdk.Panel:
        text = Text(
            title,
            "The number of workers in each tenth over time. Inactive workers are not counted.",
            "percentunit",
        )
        return heatmap(text, distribution(ratio), "short", size=HALF)

    return [heat("CPU of all workers", MATCHING("cpu_usage_ratio")), heat("Memory of all workers", _MEMORY), _table()]


def _table() -> sdk.Panel:
    busiest = f"topk({ROWS}, {_CPU})"

    def beside(expr: str) -> str:
        return f"{expr} and on (worker_id) {busiest}"

    text = Text("Busiest workers", f"The {ROWS} workers with the highest CPU usage, with other readings.", "short")
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


def _outliers() -> list[sdk.Panel]:
    def top_graph(title: str, unit: str, what: str, make: Callable[[str], str], *limits: str) -> sdk.Panel:
        text = Text(title, f"The ten highest workers at the end of the time range: {what}.", unit)
        most = 1 if unit == "percentunit" else None
        query = Query(top(make), "{{worker_id}}")
        return graph(text, query, limits=alert_thresholds(*limits), size=THIRD, maximum=most, per_worker=True)

    odd = MATCHING.recorded("worker_reading:own_z")
    turns = f"topk({TOP}, max by (worker_id) (changes({_UP}[30m])) > 0)"
    return [
        top_graph("CPU", "percentunit", "share of all cores", lambda at: f"{MATCHING('cpu_usage_ratio')}{at}",
                  "cpu_ratio"),
        top_graph("Memory", "percentunit", "share of the memory's size", lambda at: f"{_MEMORY}{at}", "memory_ratio"),
        top_graph("Fullest filesystem", "percentunit", "used share of each worker's fullest filesystem",
                  lambda at: f"{_DISK}{at}",
            "filesystem_ratio", "filesystem_full_ratio"),
        top_graph("Missed heartbeats", "cps", "lost heartbeats per second",
            lambda at: rate(MATCHING("heartbeats_missed_total"), at), "heartbeats_missed_rate"),
        bar_gauge(Text("Flapping", "Changes between active and inactive in the last 30 minutes.", "short"),
                  Query(turns, "{{worker_id}}"), limits=alert_thresholds("worker_flaps"), size=THIRD),
        graph(Text("Unusual readings",
                   "Deviation of a reading from the worker's own last hour, in standard deviations: the ten "
                   "highest at the end of the time range. Requires an hour of data and the rules of monitoring/.",
                   "short"),
              Query(top(lambda at: f"abs({odd}{at})", "worker_id, reading"), "{{worker_id}} {{reading}}"),
              limits=alert_thresholds("anomaly_own_z"), size=THIRD, per_worker=True),
    ]  # fmt: skip
