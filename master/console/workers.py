"""``workers``, ``drain`` and ``undrain``."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import click

from fleetpulse.master.console import values
from fleetpulse.master.console.client import segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.near import WORKER_ID, worker_named
from fleetpulse.master.console.options import pairs
from fleetpulse.master.console.tables import Cell, Column

Worker = Mapping[str, Any]

_COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("CPU", right=True, spare=1),
    Column("MEMORY", right=True, spare=2),
    Column("GPU", right=True, spare=3),
    Column("TASKS", right=True, spare=4),
    Column("SEEN", right=True, spare=5),
    Column("HOST", spare=7, wide=True),
    Column("CORES", right=True, spare=8, wide=True),
    Column("FREE CPU", right=True, spare=9, wide=True),
    Column("FREE MEMORY", right=True, spare=10, wide=True),
    Column("FREE GPUS", right=True, spare=11, wide=True),
    Column("VERSION", spare=12, wide=True),
    Column("LABELS", spare=6, wide=True),
)
_STYLES = {"active": "green", "inactive": "bold red", "draining": "yellow", "no tasks": "cyan"}


def state(worker: Worker) -> str:
    """In a word or two, what one should know of it first."""
    if not worker.get("is_active"):
        return "inactive"
    tasks = worker.get("tasks") or {}
    if tasks.get("draining"):
        return "draining"
    return "active" if tasks.get("accepted", True) else "no tasks"


def state_cell(worker: Worker) -> Cell:
    """The same, with its colour."""
    word = state(worker)
    return Cell(word, _STYLES[word])


def worker_row(worker: Worker, now: float) -> list[Cell | str]:
    """A row of the table of workers."""
    telemetry, capacity = worker.get("telemetry") or {}, worker.get("capacity") or {}
    available, tasks = worker.get("available") or {}, worker.get("tasks") or {}
    return [
        values.text(worker.get("worker_id")),
        state_cell(worker),
        values.percent(telemetry.get("cpu_usage")),
        values.percent(telemetry.get("memory_usage")),
        values.percent(telemetry.get("gpu_usage")),
        values.number(tasks.get("count")),
        values.age(telemetry.get("last_update"), now),
        values.text(worker.get("hostname")),
        values.number(capacity.get("cpu_cores")),
        values.number(available.get("cpu_cores")),
        values.size(available.get("memory_bytes")),
        values.number(available.get("gpu_count")),
        values.text(worker.get("version")),
        values.labels(worker.get("labels")),
    ]


@console_command("workers")
@click.option(
    "--active/--inactive", "is_active", default=None, help="Only those that are heard, or those that are not."
)
@click.option("--draining", is_flag=True, help="Only those that get no new tasks until `undrain`.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only those with this label; repeatable.")
@click.option("--name", metavar="PATTERN", help="Only those whose id or host name matches, as in 'rack-7*'.")
def workers_command(
    session: ClientContext, is_active: bool | None, draining: bool, labels: tuple[str, ...], name: str | None
) -> None:
    """List the workers with their state and what they are busy with."""
    wanted = pairs("--label", labels)
    found = [
        worker
        for worker in session.client.get_list("/api/workers")
        if (is_active is None or bool(worker.get("is_active")) is is_active)
        and (not draining or (worker.get("tasks") or {}).get("draining"))
        and wanted.items() <= (worker.get("labels") or {}).items()
        and (name is None or _matches(worker, name))
    ]
    if session.screen.is_json:
        session.screen.json(found)
        return
    found.sort(key=lambda worker: natural(str(worker.get("worker_id"))))
    now = session.client.now()
    session.screen.table(_COLUMNS, [worker_row(worker, now) for worker in found], nothing="no such workers")


@console_command("drain")
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER...", type=WORKER_ID)
@click.option("--reason", default="", help="Why; whoever asks why a task waits is told.")
def drain_command(session: ClientContext, worker_ids: tuple[str, ...], reason: str) -> None:
    """Give workers no new tasks; those that they have run on."""
    for worker_id in worker_ids:
        _tell(session, worker_id, "drain", {"reason": reason} if reason else None, "gets no new tasks")


@console_command("undrain")
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER...", type=WORKER_ID)
def undrain_command(session: ClientContext, worker_ids: tuple[str, ...]) -> None:
    """Give workers tasks again."""
    for worker_id in worker_ids:
        _tell(session, worker_id, "undrain", None, "gets tasks again")


def _tell(session: ClientContext, worker_id: str, verb: str, body: Any, done: str) -> None:
    with worker_named(session.client, worker_id):
        answer = session.client.post(f"/api/workers/{segment(worker_id, 'worker')}/{verb}", body)
    if session.screen.is_json:
        session.screen.json(answer)
    else:
        session.screen.line(f"{worker_id} {done}")


def natural(text: str) -> list[tuple[int, str]]:
    """Orders ``worker-2`` before ``worker-10``."""
    parts = "".join(char if char.isdigit() else f"\0{char}\0" for char in text).split("\0")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _matches(worker: Worker, pattern: str) -> bool:
    wanted = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    return any(fnmatch.fnmatchcase(str(worker.get(field) or ""), wanted) for field in ("worker_id", "hostname"))
