"""``tasks``, ``task`` and ``cancel``."""

import itertools
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import path_segment
from fleetpulse.master.console.command import ClientContext, console_command, for_each, pairs
from fleetpulse.master.console.completion import TASK_ID, WORKER_ID, suggest_task
from fleetpulse.master.console.screen import Column, Shown, field

_EVENT_TIME = "%Y-%m-%d %H:%M:%S"
LIVE = ("queued", "pending", "running")
TERMINAL = ("completed", "failed", "cancelled")
_status = field(
    "status",
    styles={"queued": "yellow", "pending": "cyan", "running": "blue", "completed": "green", "failed": "bold red"},
)


def task_path(task_id: str) -> str:
    """The path of a task. Raises ``UnknownId`` for what cannot be an id."""
    return f"/api/tasks/{path_segment(task_id, 'task')}"


def _reason(task: Mapping[str, Any]) -> str:
    """Why the task waits, or why it failed."""
    return fmt.text(task.get("queue_reason") or task.get("error") or task.get("reason"))


def _mebibytes(value: Any) -> str:
    return f"{fmt.number(value)} MiB"


def _columns(now: float) -> tuple[Column, ...]:
    return (
        Column("TASK", field("task_id")),
        Column("STATUS", _status),
        Column("WORKER", field("worker_id"), spare=2),
        Column("AGE", field("created_at", partial(fmt.age, now=now)), spare=4, right=True),
        Column("EXIT", field("exit_code", fmt.number), spare=3, right=True),
        Column("ATTEMPT", field("attempt", fmt.number), spare=6, right=True, wide=True),
        Column("CPU", field("cpu_required", fmt.number), spare=7, right=True, wide=True),
        Column("MEMORY", field("memory_required", _mebibytes), spare=8, right=True, wide=True),
        Column("GPUS", field("gpu_required", fmt.number), spare=9, right=True, wide=True),
        Column("PRIORITY", field("priority", fmt.number), spare=10, right=True, wide=True),
        Column("LABELS", field("labels", fmt.labels), spare=11, wide=True),
        Column("IMAGE", field("docker_image"), spare=12, wide=True),
        Column("NAME", lambda task: fmt.text(task.get("name") or task.get("docker_image")), spare=5),
        Column("WHY", _reason, spare=1),
    )


@console_command("tasks")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice((*LIVE, *TERMINAL)), help="Only these; repeatable."
)
@click.option("--active/--inactive", "is_live", default=None, help="Only tasks that have not ended, or that have.")
@click.option("--worker", "worker_id", type=WORKER_ID, help="Only tasks that are or were on this worker.")
@click.option("--name", help="Only tasks whose name begins with this.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only with this label; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the newest.")
@click.option("--all", "shows_all", is_flag=True, help="Without a limit.")
def tasks_command(
    context: ClientContext,
    statuses: tuple[str, ...],
    is_live: bool | None,
    labels: tuple[str, ...],
    limit: int,
    shows_all: bool,
    **query: Any,
) -> None:
    """List the tasks, the newest first."""
    wanted = pairs("--label", labels)
    if is_live is not None:
        statuses = tuple(one for one in (LIVE if is_live else TERMINAL) if not statuses or one in statuses)
    query["status"] = ",".join(statuses) or None
    most = None if shows_all else limit
    # The master filters by all but labels. No status is left to ask for in `--active --status failed`.
    found = context.client.items("/api/tasks", query, None if wanted else most) if statuses or is_live is None else ()
    tasks = list(itertools.islice((task for task in found if wanted.items() <= _labels(context, task).items()), most))
    context.screen.table(_columns(context.client.now()), tasks, empty="no such tasks")


def _labels(context: ClientContext, task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's labels; a list leaves out very many of them."""
    if "labels" in (task.get("truncated") or ()):
        task = context.client.get_dict(task_path(str(task.get("task_id"))))
    return task.get("labels") or {}


@console_command("task")
@click.argument("task_id", metavar="ID", type=TASK_ID)
def task_command(context: ClientContext, task_id: str) -> None:
    """Show one task with its attempts and events."""
    with suggest_task(context.client, task_id):
        task = context.client.get_dict(task_path(task_id))
    context.screen.pairs(task, _task_lines(task, context.client.now()))


def _task_lines(task: Mapping[str, Any], now: float) -> list[tuple[str, Shown]]:
    cpu, gpu = fmt.number(task.get("cpu_required")), fmt.number(task.get("gpu_required"))
    lines: list[tuple[str, Shown]] = [
        ("task", fmt.text(task.get("task_id"))),
        ("name", fmt.text(task.get("name"))),
        ("status", _status(task)),
        ("why", _reason(task)),
        ("exit code", fmt.number(task.get("exit_code"))),
        ("worker", fmt.text(task.get("worker_id"))),
        ("attempt", f"{task.get('attempt')} (retries used: {task.get('retries_used')} of {task.get('max_retries')})"),
        ("image", fmt.text(task.get("docker_image"))),
        ("command", fmt.text(shlex.join(map(str, task.get("command") or [])))),
        ("needs", f"{cpu} cores, {_mebibytes(task.get('memory_required'))}, {gpu} GPUs"),
        ("priority", fmt.number(task.get("priority"))),
        ("timeout", fmt.duration(task.get("timeout_seconds"))),
        ("env", fmt.text(" ".join(task.get("env") or {}))),
        ("confinement", _confinement(task)),
        ("labels", fmt.labels(task.get("labels"))),
        ("constraints", fmt.labels(task.get("constraints"))),
        ("submitted", f"{fmt.age(task.get('created_at'), now)} ago"),
    ]
    return lines + [
        (fmt.local_time(event.get("time"), _EVENT_TIME), event_text(event)) for event in task.get("events") or []
    ]


def _confinement(task: Mapping[str, Any]) -> str:
    root = {True: "root read-only", False: "root read-write"}.get(task.get("read_only"))  # type: ignore[arg-type]
    parts = (root, *(f"{name} {task[name]}" for name in ("user", "network") if task.get(name)))
    return fmt.text(", ".join(part for part in parts if part))


def event_text(event: Mapping[str, Any]) -> str:
    """One event of a task, as ``cancel requested (attempt 2): by hand``."""
    attempt, message = event.get("attempt"), event.get("message")
    kind = str(event.get("kind")).replace("_", " ")
    return f"{kind}{f' (attempt {attempt})' if attempt else ''}{f': {message}' if message else ''}"


@console_command("cancel")
@click.argument("task_ids", nargs=-1, required=True, metavar="ID...", type=TASK_ID)
def cancel_command(context: ClientContext, task_ids: tuple[str, ...]) -> None:
    """Cancel tasks. A running task gets SIGTERM and, after its grace period, SIGKILL."""

    def cancel(task_id: str) -> None:
        with suggest_task(context.client, task_id):
            task = context.client.delete(task_path(task_id))
        is_ended = isinstance(task, dict) and task.get("status") == "cancelled"
        context.screen.result(task, f"{task_id} {'is cancelled' if is_ended else 'is being cancelled'}")

    for_each(task_ids, cancel)
