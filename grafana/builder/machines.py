"""The Worker dashboard, about one machine, and the GPUs dashboard, about all devices."""

from collections.abc import Callable
from typing import NamedTuple

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.dashboard import Section, dashboard, search_variable, worker_variable
from grafana.builder.panels import (
    BLUE_ALWAYS,
    GREEN_FROM_1,
    GREY_ALWAYS,
    HALF,
    ORANGE,
    QUARTER,
    THIRD,
    WIDE,
    WORKER,
    Column,
    Size,
    Text,
    Thresholds,
    alert_thresholds,
    alerts_table,
    bar_gauge,
    graph,
    heatmap,
    label_panel,
    stat_panel,
    state_timeline,
    table,
    thresholds,
)
from grafana.builder.queries import (
    ONE,
    ROWS,
    SELECTED,
    TOP,
    Query,
    Workers,
    distribution,
    or_zero,
    rate,
    top,
    with_info,
)

_ACTIVE = {0: "inactive", 1: "active"}
_TAKES = {0: "no", 1: "yes"}
_FULL = thresholds((1.0, ORANGE))


def worker() -> sdk.Dashboard:
    return dashboard(
        "fleetpulse-worker",
        "One machine. A graph ends where the worker is inactive or does not have the reading.",
        [
            Section("$worker", _worker_now()),
            Section("History", _worker_history()),
            Section("CPU and memory", _worker_load()),
            Section("Filesystems, disks, network", _worker_io()),
            Section("GPUs", _gpus_of_worker()),
            Section("Tasks", _worker_tasks()),
            Section("Telemetry", _worker_telemetry()),
        ],
        [search_variable(), worker_variable(several=False)],
        'ALERTS{alertname=~"FleetPulse.+", alertstate="firing", worker_id="$worker"}',
        max_points=None,
    )


def _worker_now() -> list[sdk.Panel]:
    silent = f"time() - max({ONE('last_heartbeat_timestamp_seconds')})"
    used, size = ONE("memory_used_bytes"), ONE("memory_size_bytes")
    return [
        stat_panel(Text("State", "Whether the worker sends heartbeats.", "short"), f"max({ONE('up')})", GREEN_FROM_1,
                   _ACTIVE),
        stat_panel(Text("Last heartbeat", "Time since the last heartbeat. An inactive worker has no other readings.",
                        "s"),
                   silent),
        label_panel(Text("Host", "The machine's own name.", "short"),
                    Query(f"max by (hostname) ({ONE('info')})", "{{hostname}}")),
        label_panel(Text("Version", "FleetPulse version of the worker.", "short"),
                    Query(f"max by (version) ({ONE('info')})", "{{version}}")),
        stat_panel(Text("Takes tasks", "No if the worker is drained or cannot run tasks.", "short"),
                   f"max({ONE('schedulable')})", GREEN_FROM_1, _TAKES),
        stat_panel(Text("Up for", "Time since the machine booted.", "s"), f"time() - max({ONE('boot_time_seconds')})"),
        stat_panel(Text("CPU", "Usage of all cores.", "percentunit"),
                   f"max({ONE('cpu_usage_ratio')})", alert_thresholds("cpu_ratio")),
        stat_panel(Text("Cores", "Logical cores.", "short"), f"max({ONE('cpu_logical_cores')})"),
        stat_panel(Text("Memory", "Share in use.", "percentunit"), f"max({used}) / max({size})",
                   alert_thresholds("memory_ratio")),
        stat_panel(Text("Memory size", "Of the machine.", "bytes"), f"max({size})"),
        stat_panel(Text("Fullest filesystem", "Used share of the fullest one.", "percentunit"),
                   f"max({ONE.recorded('worker_filesystem_used:ratio')})",
                   alert_thresholds("filesystem_ratio", "filesystem_full_ratio")),
        stat_panel(Text("Running tasks", "Tasks that run on the worker.", "short"), f"max({ONE('running_tasks')})",
                   BLUE_ALWAYS),
    ]  # fmt: skip


def _worker_history() -> list[sdk.Panel]:
    text = Text(
        "Active",
        "Active or inactive over time. In a gap the master was not scraped, or did not know the worker.",
        "short",
    )
    takes = Text("Takes tasks", "Whether tasks can be placed on the worker. Empty while it is inactive.", "short")
    return [
        alerts_table({"worker_id": "$worker"}, HALF, " about this worker"),
        state_timeline(text, Query(f"max({ONE('up')})", "state"), limits=GREEN_FROM_1, names=_ACTIVE, size=QUARTER),
        state_timeline(
            takes, Query(f"max({ONE('schedulable')})", "takes tasks"), limits=GREEN_FROM_1, names=_TAKES, size=QUARTER
        ),
    ]


def _worker_load() -> list[sdk.Panel]:
    cores = f"max({ONE('cpu_logical_cores')})"
    return [
        graph(Text("CPU", "Usage of all cores, and share that is allocated to tasks.", "percentunit"),
              Query(f"max({ONE('cpu_usage_ratio')})", "used"),
              Query(f"max({ONE('allocated_cpu_cores')}) / {cores}", "allocated"),
              limits=alert_thresholds("cpu_ratio"), maximum=1),
        graph(Text("Load", "Mean number of running and waiting processes, and number of cores.", "short"),
              *(Query(f"max({ONE(f'load{minutes}')})", f"{minutes} min") for minutes in (1, 5, 15)),
              Query(cores, "total")),
        graph(Text("Memory", "Used, allocated to tasks, and total.", "bytes"),
              Query(f"max({ONE('memory_used_bytes')})", "used"),
              Query(f"max({ONE('allocated_memory_bytes')})", "allocated"),
              Query(f"max({ONE('memory_size_bytes')})", "total")),
        graph(Text("Swap", "Used and total. Empty without swap or its reading.", "bytes"),
              Query(f"max({ONE('swap_used_bytes')})", "used"), Query(f"max({ONE('swap_size_bytes')})", "total")),
        graph(Text("Pressure", "Share of time in which some processes waited for CPU, memory or I/O, and in which all "
                   "that had work waited for memory.", "percentunit"),
              *(Query(f"max({rate(ONE(f'pressure_{name}_seconds_total'))})", legend) for name, legend in (
                  ("cpu_waiting", "CPU"), ("memory_waiting", "memory"), ("io_waiting", "I/O"),
                  ("memory_stalled", "memory, all"))),
              limits=alert_thresholds("memory_stalled_ratio")),
        graph(Text("Temperatures", "By sensor; the ten highest at the end of the time range.", "celsius"),
              Query(top(lambda at: f"{ONE('sensor_temperature_celsius')}{at}", "sensor"), "{{sensor}}")),
    ]  # fmt: skip


def _worker_io() -> list[sdk.Panel]:
    def used(at: str) -> str:
        return f"{ONE.recorded('worker_filesystem_used:ratio')}{at}"

    def in_4_hours(at: str) -> str:
        return f"predict_linear({ONE.recorded('worker_filesystem_used:ratio')}[1h]{at}, 4 * 3600)"

    def top_rate(by: str, name: str) -> str:
        return top(lambda at: rate(ONE(name), at), by)

    def throughput(title: str, what: str, by: str, *pair: tuple[str, str]) -> sdk.Panel:
        text = Text(title, f"Bytes {what} per second; the ten highest at the end of the time range.", "Bps")
        return graph(text, *(Query(top_rate(by, name), f"{{{{{by}}}}} {verb}") for name, verb in pair), size=QUARTER)

    return [
        graph(Text("Filesystems", "Used share of each; the ten highest at the end of the time range.", "percentunit"),
              Query(top(used, "mountpoint"), "{{mountpoint}}"),
              limits=alert_thresholds("filesystem_ratio", "filesystem_full_ratio"),
              size=QUARTER, maximum=1),
        graph(Text("Filesystems in 4 hours",
                   "Used share of each if the trend of the last hour continues. FleetPulseFilesystemFillsIn4Hours "
                   "fires when that is full and the filesystem is more than 60 % full already.", "percentunit"),
              Query(top(in_4_hours, "mountpoint"), "{{mountpoint}}"), limits=_FULL, size=QUARTER),
        throughput("Disks", "read and written", "device",
             ("disk_read_bytes_total", "read"), ("disk_written_bytes_total", "written")),
        throughput("Network", "received and sent", "interface",
             ("network_received_bytes_total", "received"), ("network_transmitted_bytes_total", "sent")),
    ]  # fmt: skip


def _worker_tasks() -> list[sdk.Panel]:
    def top_graph(title: str, what: str, unit: str, name: str) -> sdk.Panel:
        text = Text(title, f"{what}, by running task; the ten highest at the end of the time range.", unit)
        return graph(text, Query(top(lambda at: f"{ONE(name)}{at}", "task_id"), "{{task_id}}"), size=THIRD)

    return [
        graph(
            Text("Running tasks", "Tasks that run on the worker.", "short"),
            Query(f"max({ONE('running_tasks')})", "running"),
            size=THIRD,
        ),
        top_graph("CPU of tasks", "Share of one core (200 % is two cores)", "percentunit", "task_cpu_usage_ratio"),
        top_graph("Memory of tasks", "Memory in use", "bytes", "task_memory_used_bytes"),
    ]


def _worker_telemetry() -> list[sdk.Panel]:
    collectors = Query(f"min by (collector) ({ONE('collector_success')})", "{{collector}}")
    return [
        graph(Text("Age of the last heartbeat", "A sawtooth up to the heartbeat interval.",
                   "s"),
              Query(f"time() - max({ONE('last_heartbeat_timestamp_seconds')})", "age"), size=Size(6, 8)),
        graph(Text("Heartbeats lost", "Missed: never arrived. Dropped: replaced in a full queue by a newer one.",
                   "cps"),
              Query(f"max({rate(ONE('heartbeats_missed_total'))})", "missed"),
              Query(f"max({rate(ONE('heartbeats_dropped_total'))})", "dropped"),
              limits=alert_thresholds("heartbeats_missed_rate"), size=QUARTER),
        graph(Text("Slowest collector", "Duration of the slowest collector.", "s"),
              Query(f"max({ONE('collectors_duration_seconds')})", "slowest"), limits=GREY_ALWAYS, size=QUARTER),
        state_timeline(Text("Collectors", "Result of each collector. /telemetry/$worker has the errors.",
                            "short"),
                       collectors, limits=GREEN_FROM_1, names={0: "failed", 1: "ok"}, size=QUARTER),
    ]  # fmt: skip


_GPU_MEMORY = SELECTED.recorded("worker_gpu_memory_used:ratio")
_GPU_LABELS = "worker_id, gpu, uuid"


def gpus() -> sdk.Dashboard:
    return dashboard(
        "fleetpulse-gpus",
        "All GPUs: utilization, memory, temperature, power, and allocated but idle GPUs.",
        [
            Section("Now", _gpus_now()),
            Section("All GPUs", _gpus_all()),
            Section("Outliers", _highest_gpus(SELECTED)),
            Section("Each device", [_gpu_table()]),
        ],
        [search_variable(), worker_variable(several=True)],
    )


def _by_gpu(name: str) -> str:
    """For the table."""
    return f"max by ({_GPU_LABELS}) ({SELECTED(name)})"


def _gpus_now() -> list[sdk.Panel]:
    count = f"count({SELECTED('gpu_info')})"
    used, size = (f"sum({SELECTED(f'gpu_memory_{what}_bytes')})" for what in ("used", "size"))
    return [
        stat_panel(Text("GPUs", "Of active workers.", "short"), count),
        stat_panel(Text("Allocated", "Share of the GPUs that is allocated to tasks.", "percentunit"),
                   f"sum({SELECTED('allocated_gpus')}) / {count}"),
        stat_panel(Text("Utilization", "Mean share of the time in which a kernel ran.", "percentunit"),
                   f"avg({SELECTED('gpu_utilization_ratio')})"),
        stat_panel(Text("Memory", "Share of all GPU memory in use.", "percentunit"), f"{used} / {size}"),
        stat_panel(Text("Hottest", "Highest temperature. Coloured from the threshold of FleetPulseGpuHot.",
                        "celsius"),
                   f"max({SELECTED('gpu_temperature_celsius')})", alert_thresholds("gpu_temperature_celsius")),
        stat_panel(Text("Power", "Total power.", "watt"), f"sum({SELECTED('gpu_power_watts')})"),
    ]  # fmt: skip


def _gpus_all() -> list[sdk.Panel]:
    busy = SELECTED("gpu_utilization_ratio")
    idle = or_zero(f"count({SELECTED('allocated_gpus')} > 0 unless on (worker_id) {busy} > 0.05)")
    models = f"topk({TOP}, count by (name) ({SELECTED('gpu_info')}))"
    how = "The number of GPUs in each tenth over time."
    return [
        heatmap(Text("Utilization of all GPUs", how, "percentunit"), distribution(busy), "short", HALF),
        heatmap(Text("Memory of all GPUs", how, "percentunit"), distribution(_GPU_MEMORY), "short", HALF),
        graph(Text("Allocated and busy",
                   "Total GPUs, GPUs allocated to tasks, and the sum of their utilization.", "short"),
              Query(f"count({busy})", "total"),
              Query(f"sum({SELECTED('allocated_gpus')})", "allocated"), Query(f"sum({busy})", "used"),
              size=THIRD),
        graph(Text("Allocated but idle",
                   "Workers with allocated GPUs of which none is busy for more than 5 % of the time: a "
                   "task may be forgotten, or its input is slow.", "short"), Query(idle, "workers"), size=THIRD),
        bar_gauge(Text("Models", "GPUs by product name.", "short"), Query(models, "{{name}}"), size=THIRD),
        graph(Text("In trouble",
                   "Lost: off the bus, or no longer counted by its driver. In error: there, and without readings. "
                   "Throttled: slowed down by heat or by the hardware.", "short"),
              Query(or_zero(f"sum({SELECTED('gpu_lost')})"), "lost"),
              Query(or_zero(f"count({SELECTED('gpu_up')} == 0 unless {SELECTED('gpu_lost')} == 1)"), "in error"),
              Query(or_zero(f"sum({SELECTED('gpu_throttled')})"), "throttled"), size=HALF),
        bar_gauge(Text("Held and free", "GPUs that answer, by whether a process holds them.", "short"),
                  Query(or_zero(f"count({SELECTED('gpu_processes')} > 0)"), "held"),
                  Query(or_zero(f"count({SELECTED('gpu_processes')} == 0)"), "free"), size=HALF),
        alerts_table({"alertname": "FleetPulseGpu.*", "worker_id": "$worker"}, WIDE, " about GPUs"),
    ]  # fmt: skip


def _gpu_table() -> sdk.Panel:
    busiest = f"topk({ROWS}, {_by_gpu('gpu_memory_size_bytes')})"

    def beside(expr: str) -> str:
        return f"{expr} and on ({_GPU_LABELS}) {busiest}"

    text = Text("Devices", f"At most {ROWS} GPUs with their readings. Use the filters above for others.", "short")
    named = with_info(busiest, SELECTED("gpu_info"), _GPU_LABELS, "name")
    return table(
        text,
        WORKER,
        Column("GPU", "gpu"),
        Column("UUID", "uuid"),
        Column("Model", "name"),
        Column("Size", named, "bytes"),
        Column(
            "Memory",
            beside(f"max by ({_GPU_LABELS}) ({_GPU_MEMORY})"),
            "percentunit",
            limits=alert_thresholds("gpu_memory_ratio"),
            share=True,
        ),
        Column("Utilization", beside(_by_gpu("gpu_utilization_ratio")), "percentunit", share=True),
        Column(
            "Temperature",
            beside(_by_gpu("gpu_temperature_celsius")),
            "celsius",
            limits=alert_thresholds("gpu_temperature_celsius"),
        ),
        Column("Power", beside(_by_gpu("gpu_power_watts")), "watt"),
        size=WIDE,
        sort="Utilization",
    )


class _GpuReading(NamedTuple):
    """``expr`` builds the query for ``Workers``, with a modifier after each selector."""

    title: str
    description: str
    unit: str
    expr: Callable[[Workers, str], str]
    limits: Thresholds = GREY_ALWAYS
    maximum: float | None = None


def _gpu_metric(name: str) -> Callable[[Workers, str], str]:
    return lambda workers, at: f"{workers(name)}{at}"


def _gpu_memory(workers: Workers, at: str) -> str:
    return f"{workers.recorded('worker_gpu_memory_used:ratio')}{at}"


_GPU_READINGS = (
    _GpuReading("Utilization", "Share of the time in which a kernel ran", "percentunit",
                _gpu_metric("gpu_utilization_ratio"), maximum=1),
    _GpuReading("Memory", "Share of the GPU memory in use", "percentunit", _gpu_memory,
                alert_thresholds("gpu_memory_ratio"), maximum=1),
    _GpuReading("Temperature", "Temperature", "celsius", _gpu_metric("gpu_temperature_celsius"),
                alert_thresholds("gpu_temperature_celsius")),
    _GpuReading("Power", "Power draw", "watt", _gpu_metric("gpu_power_watts")),
)  # fmt: skip


def _gpus_of_worker() -> list[sdk.Panel]:
    """A line for each GPU of ``$worker``, at most 16."""
    return [_gpu_graph(reading, ONE, "gpu", 16, QUARTER, ", by GPU. Empty without one.") for reading in _GPU_READINGS]


def _highest_gpus(workers: Workers) -> list[sdk.Panel]:
    note = "; the ten highest at the end of the time range."
    return [_gpu_graph(reading, workers, "worker_id, gpu", TOP, HALF, note) for reading in _GPU_READINGS]


def _gpu_graph(reading: _GpuReading, workers: Workers, by: str, count: int, size: Size, note: str) -> sdk.Panel:
    expr = top(lambda at: reading.expr(workers, at), by, count)
    per_worker = "worker_id" in by
    return graph(
        Text(reading.title, f"{reading.description}{note}", reading.unit),
        Query(expr, "{{worker_id}} GPU {{gpu}}" if per_worker else "GPU {{gpu}}"),
        limits=reading.limits,
        size=size,
        maximum=reading.maximum,
        per_worker=per_worker,
    )
