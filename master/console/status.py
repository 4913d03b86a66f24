"""``status``: the fleet in a few lines, or all about one worker."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from fleetpulse.master.console import values
from fleetpulse.master.console.client import MasterClient, segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.near import WORKER_ID, worker_named
from fleetpulse.master.console.tables import Cell
from fleetpulse.master.console.workers import state, state_cell

Line = tuple[str, Cell | str]
_PAGE = 1000
_LIVE = ("queued", "pending", "running")


@console_command("status")
@click.argument("worker_id", required=False, metavar="[WORKER]", type=WORKER_ID)
def status_command(session: ClientContext, worker_id: str | None) -> None:
    """Show how the fleet is, or everything about one worker."""
    if worker_id is None:
        _show_fleet(session)
        return
    with worker_named(session.client, worker_id):
        worker = session.client.get_dict(f"/api/workers/{segment(worker_id, 'worker')}")
    if session.screen.is_json:
        session.screen.json(worker)
    else:
        session.screen.pairs([*_identity(worker, session.client.now()), *_room(worker), *_readings(worker)])


def _show_fleet(session: ClientContext) -> None:
    health = session.client.get_dict("/health")
    workers = session.client.get_list("/api/workers")
    states = Counter(state(worker) for worker in workers)
    tasks = _live_tasks(session.client)
    if session.screen.is_json:
        active = sum(bool(worker.get("is_active")) for worker in workers)
        counts = {"total": len(workers), "active": active, "inactive": len(workers) - active}
        session.screen.json({"health": health, "workers": counts, "tasks": tasks})
        return
    told = ", ".join(
        f"{states[word]} {word}" for word in ("active", "draining", "no tasks", "inactive") if states[word]
    )
    is_well = health.get("status") == "healthy"
    session.screen.pairs(
        [
            ("master", session.client.url),
            ("health", Cell(values.text(health.get("status")), "green" if is_well else "bold red")),
            ("version", values.text(health.get("version"))),
            ("workers", told or "none yet; `fleetpulse worker` on a machine starts one"),
            ("tasks", ", ".join(f"{count} {status}" for status, count in tasks.items())),
        ]
    )


def _live_tasks(client: MasterClient) -> dict[str, int]:
    counts = dict.fromkeys(_LIVE, 0)
    for page in client.pages("/api/tasks", {"status": ",".join(_LIVE), "limit": _PAGE}):
        for task in page:
            counts[task["status"]] = counts.get(task["status"], 0) + 1
    return counts


def _identity(worker: Mapping[str, Any], now: float) -> list[Line]:
    telemetry, tasks = worker.get("telemetry") or {}, worker.get("tasks") or {}
    cell = state_cell(worker)
    refusal = tasks.get("drain_reason") or tasks.get("refusal") or tasks.get("support_reason")
    if cell.text == "inactive":
        refusal = None  # its state says it all
    return [
        ("worker", values.text(worker.get("worker_id"))),
        ("state", Cell(f"{cell.text}: {refusal}" if refusal else cell.text, cell.style)),
        ("seen", f"{values.age(telemetry.get('last_update'), now)} ago"),
        ("host", values.text(worker.get("hostname"))),
        ("version", values.text(worker.get("version"))),
        ("labels", values.labels(worker.get("labels"))),
        ("up for", values.duration(telemetry.get("uptime_seconds"))),
    ]


def _room(worker: Mapping[str, Any]) -> list[Line]:
    capacity, free = worker.get("capacity") or {}, worker.get("available") or {}

    def of(field: str, show: Any) -> str:
        return f"{show(free.get(field))} of {show(capacity.get(field))} free for tasks"

    return [
        ("cores", of("cpu_cores", values.number)),
        ("memory", of("memory_bytes", values.size)),
        ("gpus", of("gpu_count", values.number)),
    ]


def _readings(worker: Mapping[str, Any]) -> list[Line]:
    telemetry = worker.get("telemetry") or {}
    memory, load = telemetry.get("memory") or {}, telemetry.get("load") or {}
    used = f"{values.size(memory.get('used_bytes'))} of {values.size(memory.get('size_bytes'))}"
    lines: list[Line] = [
        ("cpu used", values.percent(telemetry.get("cpu_usage"))),
        ("memory used", f"{values.percent(telemetry.get('memory_usage'))}, {used}"),
        ("load", " ".join(values.number(load.get(field)) for field in ("load1", "load5", "load15"))),
    ]
    for gpu in telemetry.get("gpus") or []:
        memory_text = f"{values.size(gpu.get('memory_used_bytes'))} of {values.size(gpu.get('memory_size_bytes'))}"
        watts, celsius = values.number(gpu.get("power_watts")), values.number(gpu.get("temperature_celsius"))
        readings = f"{values.percent(gpu.get('utilization_percent'))}, {memory_text}, {celsius} °C, {watts} W"
        lines.append((f"gpu {gpu.get('index')}", f"{values.text(gpu.get('name'))}: {readings}"))
    lines += [(f"disk {disk.get('mountpoint')}", _used(disk)) for disk in telemetry.get("filesystems") or []]
    for task in telemetry.get("running_tasks") or []:
        use = f"{values.percent(task.get('cpu_usage'))} of a core, {values.size(task.get('memory_used_bytes'))}"
        lines.append(("task", f"{task.get('task_id')}: {use}"))
    failed = (report for report in telemetry.get("collectors") or [] if not report.get("success"))
    lines += [(f"no {one.get('collector')}", Cell(values.text(one.get("error")), "yellow")) for one in failed]
    return lines


def _used(disk: Mapping[str, Any]) -> str:
    used, size = disk.get("used_bytes"), disk.get("size_bytes")
    share = values.percent(100.0 * used / size) if isinstance(used, int) and size else values.MISSING
    return f"{share}, {values.size(used)} of {values.size(size)}"
