"""``gpus``: every GPU of the fleet, and who holds it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import path_segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.completion import WORKER_ID, suggest_worker
from fleetpulse.master.console.screen import Cell, Column
from fleetpulse.master.console.workers import natural_key

_STATE_STYLES = {"ok": "green", "error": "yellow", "lost": "bold red"}
_SHOWN_HOLDERS = 3


class _Gpu(NamedTuple):
    worker: Mapping[str, Any]
    gpu: Mapping[str, Any]


@console_command("gpus")
@click.argument("worker_id", required=False, metavar="[WORKER]", type=WORKER_ID)
@click.option("--held", is_flag=True, help="Only GPUs that a process holds.")
@click.option("--free", is_flag=True, help="Only GPUs that answer and that no process holds.")
def gpus_command(context: ClientContext, worker_id: str | None, held: bool, free: bool) -> None:
    """List GPUs with their state, their load and the processes that hold them."""
    if worker_id is None:
        workers = context.client.get_list("/api/workers")
    else:
        with suggest_worker(context.client, worker_id):
            workers = [context.client.get_dict(f"/api/workers/{path_segment(worker_id, 'worker')}")]
    gpus = [
        found
        for found in _gpus_of(workers)
        if (not held or found.gpu.get("process_count"))
        and (not free or (found.gpu.get("state") == "ok" and found.gpu.get("process_count") == 0))
    ]
    if context.screen.is_json:
        context.screen.json([{"worker_id": worker.get("worker_id"), **gpu} for worker, gpu in gpus])
        return
    gpus.sort(key=lambda found: natural_key(str(found.worker.get("worker_id"))))
    context.screen.table(_COLUMNS, gpus, empty="no such GPUs")


def _gpus_of(workers: list[Any]) -> Iterator[_Gpu]:
    for worker in workers:
        if worker.get("is_active"):
            yield from (_Gpu(worker, gpu) for gpu in (worker.get("telemetry") or {}).get("gpus") or [])


def gpu_state(gpu: Mapping[str, Any]) -> Cell:
    """``ok``, ``throttled``, ``error``, ``lost``, or missing."""
    state = fmt.text(gpu.get("state"))
    return Cell("throttled", "yellow") if gpu.get("is_throttled") else Cell(state, _STATE_STYLES.get(state, ""))


def holders(gpu: Mapping[str, Any], most: int = _SHOWN_HOLDERS) -> str:
    """Who holds a GPU: ``ada python (71) 5.0 GiB, 2 more``. ``none`` and missing are two things."""
    count = gpu.get("process_count")
    shown = [
        f"{fmt.text(process.get('user'))} {fmt.text(process.get('command'))} ({process.get('pid')}) "
        f"{fmt.size(process.get('memory_used_bytes'))}"
        for process in (gpu.get("processes") or [])[:most]
    ]
    if isinstance(count, int) and count > len(shown):
        shown.append(f"{count - len(shown)} more")
    return ", ".join(shown) or ("none" if count == 0 else fmt.MISSING)


def _reading(name: str, show: Any) -> Any:
    return lambda found: show(found.gpu.get(name))


def _memory(found: _Gpu) -> str:
    return f"{fmt.size(found.gpu.get('memory_used_bytes'))} of {fmt.size(found.gpu.get('memory_size_bytes'))}"


_COLUMNS = (
    Column("WORKER", lambda found: fmt.text(found.worker.get("worker_id"))),
    Column("GPU", _reading("index", fmt.number), right=True),
    Column("STATE", lambda found: gpu_state(found.gpu)),
    Column("USE", _reading("utilization_percent", fmt.percent), spare=1, right=True),
    Column("MEMORY", _memory, spare=2, right=True),
    Column("°C", _reading("temperature_celsius", fmt.number), spare=4, right=True),
    Column("WATTS", _reading("power_watts", fmt.number), spare=5, right=True),
    Column("NAME", _reading("name", fmt.text), spare=6),
    Column("UUID", _reading("uuid", fmt.text), spare=8, wide=True),
    Column("WHY", _reading("state_reason", fmt.text), spare=7, wide=True),
    Column("HELD BY", lambda found: holders(found.gpu)),
)
