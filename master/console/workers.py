"""``workers``, ``drain`` and ``undrain``."""

import fnmatch
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import path_segment
from fleetpulse.master.console.command import ClientContext, console_command, for_each, pairs
from fleetpulse.master.console.completion import WORKER_ID, suggest_worker
from fleetpulse.master.console.screen import Cell, Column, field, read, styled

STATE_STYLES = {
    "inactive": "bold red",
    "draining": "yellow",
    "refused": "bold red",
    "degraded": "bold yellow",
    "no tasks": "cyan",
    "active": "green",
}


def worker_state(worker: Mapping[str, Any]) -> str:
    """``inactive``, ``draining``, ``refused``, ``degraded``, ``no tasks`` or ``active``, from an element of
    ``/api/workers``. ``refused``: the master refuses its heartbeats.
    """
    tasks = worker.get("tasks") or {}
    if worker.get("is_active") and not tasks.get("draining") and (worker.get("heartbeats") or {}).get("refusal"):
        return "refused"
    return state_of(
        worker.get("is_active"), tasks.get("draining"), tasks.get("accepted", True), tasks.get("degraded", False)
    )


def state_of(is_active: Any, draining: Any, accepts_tasks: Any, degraded: Any = False) -> str:
    """The first of the words that holds."""
    if not is_active:
        return "inactive"
    if draining:
        return "draining"
    if degraded:
        return "degraded"
    return "active" if accepts_tasks else "no tasks"


def state_cell(worker: Mapping[str, Any]) -> Cell:
    """The state with its colour."""
    return styled(worker_state(worker), STATE_STYLES)


def _columns(now: float) -> tuple[Column, ...]:
    return (
        Column("WORKER", field("worker_id")),
        Column("STATE", state_cell),
        Column("CPU", field("telemetry.cpu_usage", fmt.percent), spare=1, right=True),
        Column("MEMORY", field("telemetry.memory_usage", fmt.percent), spare=2, right=True),
        Column("GPU", field("telemetry.gpu_usage", fmt.percent), spare=3, right=True),
        Column("TASKS", field("tasks.count", fmt.number), spare=4, right=True),
        Column("SEEN", field("telemetry.last_update", partial(fmt.age, now=now)), spare=5, right=True),
        Column("HOST", field("hostname"), spare=7, wide=True),
        Column("CORES", field("capacity.cpu_cores", fmt.number), spare=8, right=True, wide=True),
        Column("FREE CPU", field("available.cpu_cores", fmt.number), spare=9, right=True, wide=True),
        Column("FREE MEMORY", field("available.memory_bytes", fmt.size), spare=10, right=True, wide=True),
        Column("FREE GPUS", field("available.gpu_count", fmt.number), spare=11, right=True, wide=True),
        Column("VERSION", field("version"), spare=12, wide=True),
        Column("LABELS", field("labels", fmt.labels), spare=6, wide=True),
    )


@console_command("workers")
@click.option("--active/--inactive", "is_active", default=None, help="Only active workers, or only inactive ones.")
@click.option("--draining", is_flag=True, help="Only workers that get no new tasks until `undrain`.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only with this label; repeatable.")
@click.option("--name", metavar="PATTERN", help="Only those whose id or host name matches, as in 'rack-7*'.")
def workers_command(
    context: ClientContext, is_active: bool | None, draining: bool, labels: tuple[str, ...], name: str | None
) -> None:
    """List the workers with their state and load."""
    wanted = pairs("--label", labels)
    workers = [
        worker
        for worker in context.client.get_list("/api/workers")
        if (is_active is None or bool(worker.get("is_active")) is is_active)
        and (not draining or read(worker, "tasks.draining"))
        and wanted.items() <= (worker.get("labels") or {}).items()
        and (name is None or _matches(worker, name))
    ]
    if not context.screen.is_json:
        workers.sort(key=lambda worker: natural_key(str(worker.get("worker_id"))))
    context.screen.table(_columns(context.client.now()), workers, empty="no such workers")


def _matches(worker: Mapping[str, Any], pattern: str) -> bool:
    wanted = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    return any(fnmatch.fnmatchcase(str(worker.get(key) or ""), wanted) for key in ("worker_id", "hostname"))


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sort key that puts ``worker-2`` before ``worker-10``."""
    parts = "".join(char if char.isdigit() else f"\0{char}\0" for char in text).split("\0")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


@console_command("drain")
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER...", type=WORKER_ID)
@click.option("--reason", default="", help="Why; shown as the reason that tasks wait.")
def drain_command(context: ClientContext, worker_ids: tuple[str, ...], reason: str) -> None:
    """Give workers no new tasks. Tasks that they have run on."""
    body = {"reason": reason} if reason else None
    for_each(worker_ids, lambda worker_id: _post(context, worker_id, "drain", body, "gets no new tasks"))


@console_command("undrain")
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER...", type=WORKER_ID)
def undrain_command(context: ClientContext, worker_ids: tuple[str, ...]) -> None:
    """Give workers tasks again."""
    for_each(worker_ids, lambda worker_id: _post(context, worker_id, "undrain", None, "gets tasks again"))


def _post(context: ClientContext, worker_id: str, verb: str, body: Any, done: str) -> None:
    with suggest_worker(context.client, worker_id):
        answer = context.client.post(f"/api/workers/{path_segment(worker_id, 'worker')}/{verb}", body)
    context.screen.result(answer, f"{worker_id} {done}")
