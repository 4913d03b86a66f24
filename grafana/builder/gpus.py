"""The GPUs dashboard: each device, of the fleet or of a few workers."""

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.board import Section, board, search
from grafana.builder.board import worker as worker_variable
from grafana.builder.charts import lines, spread
from grafana.builder.devices import those_that_stand_out
from grafana.builder.figures import bars, number
from grafana.builder.limits import alerting
from grafana.builder.panels import HALF, THIRD, WIDE, Text
from grafana.builder.queries import CHOSEN, ROWS, TOP, Query, distribution, or_zero, with_info
from grafana.builder.tables import WORKER, Column, firing, rows

_MEMORY = CHOSEN.recorded("worker_gpu_memory_used:ratio")
_ON = "worker_id, gpu, uuid"


def gpus() -> sdk.Dashboard:
    return board(
        "fleetpulse-gpus",
        "Every GPU: how busy, how full, how hot, and which are promised to tasks but idle.",
        [
            Section("Now", _now()),
            Section("All GPUs", _all()),
            Section("Those that stand out", those_that_stand_out(CHOSEN)),
            Section("Each device", [_table()]),
        ],
        [search(), worker_variable(several=True)],
    )


def _each(name: str) -> str:
    """For the table."""
    return f"max by ({_ON}) ({CHOSEN(name)})"


def _now() -> list[sdk.Panel]:
    count = f"count({CHOSEN('gpu_info')})"
    used, size = (f"sum({CHOSEN(f'gpu_memory_{what}_bytes')})" for what in ("used", "size"))
    return [
        number(Text("GPUs", "Of active workers.", "short"), count),
        number(Text("Promised", "Share of the GPUs that tasks have for themselves.", "percentunit"),
               f"sum({CHOSEN('allocated_gpus')}) / {count}"),
        number(Text("Utilization", "Mean share of time in which a kernel ran.", "percentunit"),
               f"avg({CHOSEN('gpu_utilization_ratio')})"),
        number(Text("Memory", "Share of all GPU memory in use.", "percentunit"), f"{used} / {size}"),
        number(Text("Hottest", "Temperature of the hottest. Coloured from where FleetPulseGpuHot fires.", "celsius"),
               f"max({CHOSEN('gpu_temperature_celsius')})", alerting("gpu_temperature_celsius")),
        number(Text("Power", "What all of them draw.", "watt"), f"sum({CHOSEN('gpu_power_watts')})"),
    ]  # fmt: skip


def _all() -> list[sdk.Panel]:
    busy = CHOSEN("gpu_utilization_ratio")
    idle = or_zero(f"count({CHOSEN('allocated_gpus')} > 0 unless on (worker_id) {busy} > 0.05)")
    models = f"topk({TOP}, count by (name) ({CHOSEN('gpu_info')}))"
    how = "How many GPUs are in each tenth, at each time."
    return [
        spread(Text("Utilization of all GPUs", how, "percentunit"), distribution(busy), "short", HALF),
        spread(Text("Memory of all GPUs", how, "percentunit"), distribution(_MEMORY), "short", HALF),
        lines(Text("Promised and busy",
                   "GPUs that there are, that tasks have for themselves, and how many are busy in sum.", "short"),
              Query(f"count({busy})", "there is"),
              Query(f"sum({CHOSEN('allocated_gpus')})", "promised"), Query(f"sum({busy})", "used"),
              size=THIRD),
        lines(Text("Promised but idle",
                   "Workers with promised GPUs of which none is busy for more than 5 % of the time: somebody "
                   "may have forgotten a task, or its input is slow.", "short"), Query(idle, "workers"), size=THIRD),
        bars(Text("Models", "GPUs by product name.", "short"), Query(models, "{{name}}"), size=THIRD),
        firing({"alertname": "FleetPulseGpu.*", "worker_id": "$worker"}, WIDE, " about GPUs"),
    ]  # fmt: skip


def _table() -> sdk.Panel:
    busiest = f"topk({ROWS}, {_each('gpu_memory_size_bytes')})"

    def beside(expr: str) -> str:
        return f"{expr} and on ({_ON}) {busiest}"

    text = Text("Devices", f"Every GPU with its readings, {ROWS} at most: narrow down by the boxes above.", "short")
    named = with_info(busiest, CHOSEN("gpu_info"), _ON, "name")
    return rows(
        text,
        WORKER,
        Column("GPU", "gpu"),
        Column("UUID", "uuid"),
        Column("Model", "name"),
        Column("Size", named, "bytes"),
        Column(
            "Memory",
            beside(f"max by ({_ON}) ({_MEMORY})"),
            "percentunit",
            limits=alerting("gpu_memory_ratio"),
            share=True,
        ),
        Column("Utilization", beside(_each("gpu_utilization_ratio")), "percentunit", share=True),
        Column(
            "Temperature",
            beside(_each("gpu_temperature_celsius")),
            "celsius",
            limits=alerting("gpu_temperature_celsius"),
        ),
        Column("Power", beside(_each("gpu_power_watts")), "watt"),
        size=WIDE,
        sort="Utilization",
    )
