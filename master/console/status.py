"""``status``: the fleet in a few lines, or everything about one worker."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import path_segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.completion import WORKER_ID, suggest_worker
from fleetpulse.master.console.gpus import gpu_state, holders
from fleetpulse.master.console.screen import Cell, Shown, read
from fleetpulse.master.console.tasks import LIVE
from fleetpulse.master.console.workers import STATE_STYLES, state_cell, worker_state


@console_command("status")
@click.argument("worker_id", required=False, metavar="[WORKER]", type=WORKER_ID)
def status_command(context: ClientContext, worker_id: str | None) -> None:
    """Show the state of the fleet, or everything about one worker."""
    if worker_id is None:
        _show_fleet(context)
        return
    with suggest_worker(context.client, worker_id):
        worker = context.client.get_dict(f"/api/workers/{path_segment(worker_id, 'worker')}")
    context.screen.pairs(worker, _worker_lines(worker, context.client.now()))


HEALTH_STYLES = {"healthy": "green", "degraded": "yellow"}


def _show_fleet(context: ClientContext) -> None:
    health = context.client.get_dict("/health")
    workers = context.client.get_list("/api/workers")
    live = context.client.items("/api/tasks", {"status": ",".join(LIVE)})
    tasks = dict.fromkeys(LIVE, 0) | Counter(task["status"] for task in live)
    active = sum(bool(worker.get("is_active")) for worker in workers)
    counts = {"total": len(workers), "active": active, "inactive": len(workers) - active}
    status, states = fmt.text(health.get("status")), count_states(map(worker_state, workers))
    context.screen.pairs(
        {"health": health, "workers": counts, "tasks": tasks},
        [
            ("master", context.client.url),
            ("health", Cell(status, HEALTH_STYLES.get(status, "bold red"))),
            ("version", fmt.text(health.get("version"))),
            ("workers", states or "none yet; `fleetpulse worker` on a machine starts one"),
            ("tasks", ", ".join(f"{count} {status}" for status, count in tasks.items())),
        ],
    )


def count_states(states: Iterator[str]) -> str:
    """``3 active, 1 draining``; empty for no worker."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in reversed(STATE_STYLES) if counts[state])


def _worker_lines(worker: Mapping[str, Any], now: float) -> Iterator[tuple[str, Shown]]:
    state, tasks = state_cell(worker), worker.get("tasks") or {}
    refusal = None if state.text != "refused" else worker["heartbeats"]["refusal"]
    refusal = refusal or tasks.get("drain_reason") or tasks.get("refusal") or tasks.get("support_reason")
    if state.text != "inactive" and refusal:
        state = state._replace(text=f"{state.text}: {refusal}")

    def free(key: str, show: Callable[[Any], str]) -> str:
        available, capacity = show(read(worker, f"available.{key}")), show(read(worker, f"capacity.{key}"))
        return f"{available} of {capacity} free for tasks"

    yield "worker", fmt.text(worker.get("worker_id"))
    yield "state", state
    yield "seen", f"{fmt.age(read(worker, 'telemetry.last_update'), now)} ago"
    yield "host", fmt.text(worker.get("hostname"))
    yield "version", fmt.text(worker.get("version"))
    yield "labels", fmt.labels(worker.get("labels"))
    yield "up for", fmt.duration(read(worker, "telemetry.uptime_seconds"))
    yield "cores", free("cpu_cores", fmt.number)
    yield "memory", free("memory_bytes", fmt.size)
    yield "gpus", free("gpu_count", fmt.number)
    yield from _reading_lines(worker.get("telemetry") or {})


def _reading_lines(telemetry: Mapping[str, Any]) -> Iterator[tuple[str, Shown]]:
    yield "cpu used", fmt.percent(telemetry.get("cpu_usage"))
    used = _used_of(telemetry.get("memory") or {}, "used_bytes", "size_bytes")
    yield "memory used", f"{fmt.percent(telemetry.get('memory_usage'))}, {used}"
    yield "load", " ".join(fmt.number(read(telemetry, f"load.{name}")) for name in ("load1", "load5", "load15"))
    pressure = telemetry.get("pressure") or {}
    waiting = [(kind, pressure.get(f"{kind}_waiting_percent")) for kind in ("cpu", "memory", "io")]
    if any(share is not None for _, share in waiting):
        yield "waiting", ", ".join(f"{kind} {fmt.percent(share)}" for kind, share in waiting)
    for sensor in telemetry.get("sensors") or []:
        celsius, rpm = sensor.get("temperature_celsius"), sensor.get("fan_rpm")
        value = f"{fmt.number(rpm)} rpm" if celsius is None else f"{fmt.number(celsius)} °C"
        yield "sensor", f"{fmt.text(sensor.get('sensor'))}: {value}"
    if (units := telemetry.get("systemd_failed_units")) is not None:
        yield "failed units", fmt.number(units)
    for gpu in telemetry.get("gpus") or []:
        used = _used_of(gpu, "memory_used_bytes", "memory_size_bytes")
        watts, celsius = fmt.number(gpu.get("power_watts")), fmt.number(gpu.get("temperature_celsius"))
        readings = f"{fmt.percent(gpu.get('utilization_percent'))}, {used}, {celsius} °C, {watts} W"
        state = gpu_state(gpu)
        if state.text in {"error", "lost"}:
            readings = f"{state.text}, {fmt.text(gpu.get('state_reason'))}"
        yield f"gpu {gpu.get('index')}", Cell(f"{fmt.text(gpu.get('name'))}: {readings}", _gpu_style(state))
        if gpu.get("process_count"):
            yield f"gpu {gpu.get('index')} held by", holders(gpu, most=16)
    for disk in telemetry.get("filesystems") or []:
        yield f"disk {disk.get('mountpoint')}", _filesystem(disk)
    for task in telemetry.get("running_tasks") or []:
        use = f"{fmt.percent(task.get('cpu_usage'))} of a core, {fmt.size(task.get('memory_used_bytes'))}"
        yield "task", f"{task.get('task_id')}: {use}"
    for report in telemetry.get("collectors") or []:
        if not report.get("success"):
            yield f"no {report.get('collector')}", Cell(fmt.text(report.get("error")), "yellow")
    for part in telemetry.get("left_out") or []:
        yield f"{part.get('collector')}", Cell(f"{fmt.number(part.get('count'))} more are not reported", "yellow")


def _filesystem(disk: Mapping[str, Any]) -> Shown:
    used, available, size = (disk.get(f"{name}_bytes") for name in ("used", "available", "size"))
    # As df has it: what is reserved for root is neither used nor available.
    total = used + available if isinstance(used, int) and isinstance(available, int) else size
    share = fmt.percent(100.0 * used / total) if isinstance(used, int) and total else fmt.MISSING
    text = f"{share}, {_used_of(disk, 'used_bytes', 'size_bytes')}"
    if disk.get("state") == "error":
        return Cell(fmt.text(disk.get("state_reason")), "red")
    if disk.get("state") == "read_only":
        return Cell(f"{text}, read-only: {fmt.text(disk.get('state_reason'))}", "red")
    return text if size else fmt.text(disk.get("fstype"))


def _gpu_style(state: Cell) -> str:
    return "" if state.text == "ok" else state.style


def _used_of(record: Mapping[str, Any], used: str, size: str) -> str:
    return f"{fmt.size(record.get(used))} of {fmt.size(record.get(size))}"
