"""``events``: changes of workers and tasks, as they happen."""

import queue
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.command import DURATION, ClientContext, console_command
from fleetpulse.master.console.errors import UnknownId
from fleetpulse.master.console.screen import styled
from fleetpulse.master.console.stream import FleetSnapshot, FleetWatcher
from fleetpulse.master.console.tasks import LIVE, TERMINAL, task_path

_POLL_SECONDS = 1.0
_NEWEST_TASKS = 100
_MAX_LOOKUPS = 50
"""Tasks that are fetched one by one in one poll."""

_STYLES = {"inactive": "bold red", "failed": "bold red", "left": "yellow", "completed": "green", "joined": "green"}

TaskSnapshot = dict[str, dict[str, Any]]
"""Tasks by id."""


class FleetChange(NamedTuple):
    """One change of the worker or the task of this id."""

    subject: str
    id: str
    change: str
    """``joined``, ``left``, ``active``, ``inactive``, ``draining``, ``undrained``, or a task's status."""
    detail: str


@console_command("events")
@click.option("--workers", "only_workers", is_flag=True, help="Only changes of workers.")
@click.option("--tasks", "only_tasks", is_flag=True, help="Only changes of tasks.")
@click.option("--for", "seconds", type=DURATION, help="End after this time; by default at Ctrl-C.")
def events_command(context: ClientContext, only_workers: bool, only_tasks: bool, seconds: float | None) -> None:
    """Print changes of workers and tasks as they happen; with --json one line of JSON each."""
    fleets: queue.SimpleQueue[FleetSnapshot] = queue.SimpleQueue()
    watcher = FleetWatcher(context.client.clone(), on_fleet=fleets.put, on_error=context.screen.note)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    # Fails at once where there is no master.
    tasks = fetch_tasks(context.client, {})
    context.screen.note("watching; Ctrl-C ends")
    if not only_tasks:
        watcher.start()
    try:
        for change in _changes(context.client, watcher, fleets, None if only_workers else tasks, deadline):
            now, word = context.client.now(), styled(change.change, _STYLES)
            if context.screen.is_json:
                context.screen.json_line({"time": round(now, 3), **change._asdict()})
            else:
                context.screen.words([fmt.local_time(now), change.subject, change.id, word, change.detail])
    finally:
        if not only_tasks:
            watcher.stop()


def _changes(
    client: MasterClient,
    watcher: FleetWatcher,
    fleets: "queue.SimpleQueue[FleetSnapshot]",
    tasks: TaskSnapshot | None,
    deadline: float,
) -> Iterator[FleetChange]:
    """``tasks``: those of now, or ``None`` to leave tasks out."""
    fleet: FleetSnapshot | None = None
    while time.monotonic() < deadline:
        next_poll = time.monotonic() + _POLL_SECONDS
        while (remaining := next_poll - time.monotonic()) > 0:
            try:
                new_fleet = fleets.get(timeout=remaining)
            except queue.Empty:
                break
            if fleet is not None:
                yield from worker_changes(fleet, new_fleet)
            fleet = new_fleet
        if watcher.error is not None:
            raise watcher.error
        if tasks is not None:
            new_tasks = fetch_tasks(client, tasks)
            yield from task_changes(tasks, new_tasks)
            tasks = new_tasks


def worker_changes(before: FleetSnapshot, after: FleetSnapshot) -> Iterator[FleetChange]:
    """The changes between two snapshots of the fleet."""
    for worker_id, worker in after.items():
        old = before.get(worker_id)
        if old is worker:
            continue
        if old is None:
            yield FleetChange("worker", worker_id, "joined", str(worker.get("hostname") or ""))
        elif old.get("is_active") != worker.get("is_active"):
            yield FleetChange("worker", worker_id, "active" if worker.get("is_active") else "inactive", "")
        if bool((old or {}).get("draining")) != bool(worker.get("draining")):
            yield FleetChange("worker", worker_id, "draining" if worker.get("draining") else "undrained", "")
    for worker_id in before.keys() - after.keys():
        yield FleetChange("worker", worker_id, "left", "")


def task_changes(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[FleetChange]:
    """The changes between two snapshots of tasks. Tasks that are missing in ``after`` are ignored."""
    for task_id, task in after.items():
        old = before.get(task_id, {})
        if any(old.get(name) != task.get(name) for name in ("status", "attempt", "worker_id")):
            yield FleetChange("task", task_id, str(task.get("status")), _detail(task))


def _detail(task: Mapping[str, Any]) -> str:
    if task.get("status") == "queued":
        return str(task.get("queue_reason") or task.get("name") or task.get("docker_image") or "")
    code, worker_id = task.get("exit_code"), task.get("worker_id")
    reason = task.get("error") or task.get("reason") or ("" if code is None else f"exit code {code}")
    return ", ".join(str(part) for part in (f"on {worker_id}" if worker_id else "", reason) if part)


def fetch_tasks(client: MasterClient, before: TaskSnapshot) -> TaskSnapshot:
    """The tasks that have not ended, the newest ones, and those that ended since ``before``."""
    tasks = {task["task_id"]: task for task in client.items("/api/tasks", {"status": ",".join(LIVE)})}
    # The later answer wins: a task may have ended between the two.
    tasks |= {task["task_id"]: task for task in client.get_list("/api/tasks", {"limit": _NEWEST_TASKS})}
    ended = [task_id for task_id, task in before.items() if task["status"] not in TERMINAL and task_id not in tasks]
    for task_id in ended[:_MAX_LOOKUPS]:
        try:
            tasks[task_id] = client.get_dict(task_path(task_id))
        except UnknownId:
            continue  # it was deleted after its retention
    return tasks | {task_id: before[task_id] for task_id in ended[_MAX_LOOKUPS:]}
