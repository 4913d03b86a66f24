"""``tasks``, ``task`` and ``cancel``."""

import itertools
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from fleetpulse.master.console import values
from fleetpulse.master.console.client import MasterClient, segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.near import TASK_ID, WORKER_ID, task_named
from fleetpulse.master.console.options import pairs
from fleetpulse.master.console.tables import Cell, Column

Task = Mapping[str, Any]

STATUSES = ("queued", "pending", "running", "completed", "failed", "cancelled")
TERMINAL = frozenset({"completed", "failed", "cancelled"})
_STYLES = {"queued": "yellow", "pending": "cyan", "running": "blue", "completed": "green", "failed": "bold red"}
_PAGE = 1000
_COLUMNS = (
    Column("TASK"),
    Column("STATUS"),
    Column("WORKER", spare=2),
    Column("AGE", right=True, spare=4),
    Column("EXIT", right=True, spare=3),
    Column("ATTEMPT", right=True, wide=True, spare=6),
    Column("CPU", right=True, wide=True, spare=7),
    Column("MEMORY", right=True, wide=True, spare=8),
    Column("GPUS", right=True, wide=True, spare=9),
    Column("PRIORITY", right=True, wide=True, spare=10),
    Column("LABELS", wide=True, spare=11),
    Column("IMAGE", wide=True, spare=12),
    Column("NAME", spare=5),
    Column("WHY", spare=1),
)


def status_cell(status: Any) -> Cell:
    """A status with its colour."""
    return Cell(values.text(status), _STYLES.get(str(status), ""))


def why(task: Task) -> str:
    """Why it waits, or why it ended badly."""
    return values.text(task.get("queue_reason") or task.get("error") or task.get("reason"))


def _row(task: Task, now: float) -> list[Cell | str]:
    return [
        values.text(task.get("task_id")),
        status_cell(task.get("status")),
        values.text(task.get("worker_id")),
        values.age(task.get("created_at"), now),
        values.number(task.get("exit_code")),
        values.number(task.get("attempt")),
        values.number(task.get("cpu_required")),
        f"{values.number(task.get('memory_required'))} MiB",
        values.number(task.get("gpu_required")),
        values.number(task.get("priority")),
        values.labels(task.get("labels")),
        values.text(task.get("docker_image")),
        values.text(task.get("name") or task.get("docker_image")),
        why(task),
    ]


@console_command("tasks")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only those; repeatable.")
@click.option(
    "--active/--inactive", "is_live", default=None, help="Only those that have not ended, or those that have."
)
@click.option("--worker", "worker_id", type=WORKER_ID, help="Only those that are or were on this worker.")
@click.option("--name", help="Only those whose name begins so.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only those with this label; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many of the newest.")
@click.option("--all", "shows_all", is_flag=True, help="All that there are.")
def tasks_command(
    session: ClientContext,
    statuses: tuple[str, ...],
    is_live: bool | None,
    worker_id: str | None,
    name: str | None,
    labels: tuple[str, ...],
    limit: int,
    shows_all: bool,
) -> None:
    """List the tasks, the newest first."""
    wanted = pairs("--label", labels)
    if is_live is not None:
        kept = [status for status in STATUSES if (status not in TERMINAL) is is_live]
        statuses = tuple(status for status in kept if not statuses or status in statuses)
    query = {"status": ",".join(statuses) or None, "worker_id": worker_id, "name": name}
    size = _PAGE if shows_all or wanted else min(limit, _PAGE)
    chosen = _all(session.client, {**query, "limit": size}) if statuses or is_live is None else iter(())
    fitting = (task for task in chosen if wanted.items() <= (task.get("labels") or {}).items())
    found = list(itertools.islice(fitting, None if shows_all else limit))
    if session.screen.is_json:
        session.screen.json(found)
        return
    now = session.client.now()
    session.screen.table(_COLUMNS, [_row(task, now) for task in found], nothing="no such tasks")


def _all(client: MasterClient, query: Mapping[str, Any]) -> Iterator[Task]:
    for page in client.pages("/api/tasks", query):
        yield from page


def fetch(client: MasterClient, task_id: str) -> dict[str, Any]:
    """One task with its attempts and its story. Raises ``UnknownId`` with the nearest id."""
    with task_named(client, task_id):
        return client.get_dict(f"/api/tasks/{segment(task_id, 'task')}")


@console_command("task")
@click.argument("task_id", metavar="ID", type=TASK_ID)
def task_command(session: ClientContext, task_id: str) -> None:
    """Show one task with its attempts and its story."""
    task = fetch(session.client, task_id)
    if session.screen.is_json:
        session.screen.json(task)
        return
    session.screen.pairs(_lines(task, session.client.now()))


def _lines(task: Task, now: float) -> list[tuple[str, Cell | str]]:
    lines: list[tuple[str, Cell | str]] = [
        ("task", values.text(task.get("task_id"))),
        ("name", values.text(task.get("name"))),
        ("status", status_cell(task.get("status"))),
        ("why", why(task)),
        ("exit code", values.number(task.get("exit_code"))),
        ("worker", values.text(task.get("worker_id"))),
        ("attempt", f"{task.get('attempt')} (retries used: {task.get('retries_used')} of {task.get('max_retries')})"),
        ("image", values.text(task.get("docker_image"))),
        ("command", values.text(shlex.join(map(str, task.get("command") or [])))),
        ("needs", _needs(task)),
        ("priority", values.number(task.get("priority"))),
        ("timeout", values.duration(task.get("timeout_seconds"))),
        ("env", values.text(" ".join(task.get("env") or {}))),
        ("confinement", _confinement(task)),
        ("labels", values.labels(task.get("labels"))),
        ("constraints", values.labels(task.get("constraints"))),
        ("submitted", f"{values.age(task.get('created_at'), now)} ago"),
    ]
    return lines + [(clock_time(event.get("time")), event_text(event)) for event in task.get("events") or []]


def _needs(task: Task) -> str:
    cpu, gpu = values.number(task.get("cpu_required")), values.number(task.get("gpu_required"))
    return f"{cpu} cores, {values.number(task.get('memory_required'))} MiB, {gpu} GPUs"


def _confinement(task: Task) -> str:
    root = {True: "root read-only", False: "root read-write"}.get(task.get("read_only"))  # type: ignore[arg-type]
    user, network = task.get("user"), task.get("network")
    said = (root, f"user {user}" if user else None, f"network {network}" if network else None)
    return values.text(", ".join(word for word in said if word) or None)


def clock_time(unix_seconds: Any) -> str:
    """The time of day here."""
    if not isinstance(unix_seconds, int | float):
        return values.MISSING
    return datetime.fromtimestamp(unix_seconds).astimezone().strftime("%H:%M:%S")


def event_text(event: Mapping[str, Any]) -> str:
    """One step of a task's story."""
    attempt, message = event.get("attempt"), event.get("message")
    kind = str(event.get("kind")).replace("_", " ")
    return f"{kind}{f' (attempt {attempt})' if attempt else ''}{f': {message}' if message else ''}"


@console_command("cancel")
@click.argument("task_ids", nargs=-1, required=True, metavar="ID...", type=TASK_ID)
def cancel_command(session: ClientContext, task_ids: tuple[str, ...]) -> None:
    """Cancel tasks. What runs gets SIGTERM and, after its grace, SIGKILL."""
    for task_id in task_ids:
        with task_named(session.client, task_id):
            task = session.client.delete(f"/api/tasks/{segment(task_id, 'task')}")
        if session.screen.is_json:
            session.screen.json(task)
        else:
            is_gone = isinstance(task, dict) and task.get("status") == "cancelled"
            session.screen.line(f"{task_id} {'is cancelled' if is_gone else 'is being cancelled'}")
