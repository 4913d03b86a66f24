"""``events``: what happens to workers and tasks, as it happens."""

import queue
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from fleetpulse.master.console.changes import Change, task_changes, worker_changes
from fleetpulse.master.console.client import MasterClient, segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.errors import UnknownId
from fleetpulse.master.console.feed import Fleet, FleetFeed
from fleetpulse.master.console.options import DURATION
from fleetpulse.master.console.tables import Cell
from fleetpulse.master.console.tasks import TERMINAL, clock_time

_LIVE = "queued,pending,running"
_LOOK_SECONDS = 1.0
_PAGE = 1000
_NEWEST = 100
_MOST_ASKED = 50
"""Tasks that are asked about one by one, in a round."""

_STYLES = {"inactive": "bold red", "failed": "bold red", "left": "yellow", "completed": "green", "joined": "green"}

Tasks = dict[str, dict[str, Any]]


@console_command("events")
@click.option("--workers", "only_workers", is_flag=True, help="Only what happens to workers.")
@click.option("--tasks", "only_tasks", is_flag=True, help="Only what happens to tasks.")
@click.option("--for", "seconds", type=DURATION, help="End after this time; by default at Ctrl-C.")
def events_command(session: ClientContext, only_workers: bool, only_tasks: bool, seconds: float | None) -> None:
    """Tell what happens to workers and tasks, as it happens; with --json a line of JSON each."""
    fleets: queue.SimpleQueue[Fleet] = queue.SimpleQueue()
    feed = FleetFeed(session.client.another(), on_fleet=fleets.put, on_trouble=session.screen.note)
    deadline = None if seconds is None else time.monotonic() + seconds
    # Fails at once where there is no master, before anything is watched.
    tasks = look(session.client, {})
    session.screen.note("watching; Ctrl-C ends")
    if not only_tasks:
        feed.start()
    try:
        for change in _changes(session.client, feed, fleets, tasks if not only_workers else None, deadline):
            _tell(session, change)
    finally:
        if not only_tasks:
            feed.stop()


def _changes(
    client: MasterClient,
    feed: FleetFeed,
    fleets: "queue.SimpleQueue[Fleet]",
    tasks: Tasks | None,
    deadline: float | None,
) -> Iterator[Change]:
    """``tasks``: those of now, or ``None`` if nobody asks for them."""
    fleet: Fleet | None = None
    while deadline is None or time.monotonic() < deadline:
        next_look = time.monotonic() + _LOOK_SECONDS
        while (left := next_look - time.monotonic()) > 0:
            try:
                following = fleets.get(timeout=left)
            except queue.Empty:
                break
            if fleet is not None:
                yield from worker_changes(fleet, following)
            fleet = following
        if feed.error is not None:
            raise feed.error
        if tasks is not None:
            following_tasks = look(client, tasks)
            yield from task_changes(tasks, following_tasks)
            tasks = following_tasks


def look(client: MasterClient, before: Tasks) -> Tasks:
    """The tasks that have not ended, the newest ones, and those that ended since."""
    found: Tasks = {}
    for page in client.pages("/api/tasks", {"status": _LIVE, "limit": _PAGE}):
        found |= {task["task_id"]: task for task in page}
    # The later look wins: a task may have ended between the two.
    found |= {task["task_id"]: task for task in client.get_list("/api/tasks", {"limit": _NEWEST})}
    went_on = [task_id for task_id, task in before.items() if task["status"] not in TERMINAL and task_id not in found]
    for task_id in went_on[:_MOST_ASKED]:
        try:
            found[task_id] = client.get_dict(f"/api/tasks/{segment(task_id, 'task')}")
        except UnknownId:
            continue  # it was deleted with its time
    return found | {task_id: before[task_id] for task_id in went_on[_MOST_ASKED:]}


def _tell(session: ClientContext, change: Change) -> None:
    now = session.client.now()
    if session.screen.is_json:
        session.screen.json({"time": round(now, 3), **change._asdict()}, indent=None)
        sys.stdout.flush()
    else:
        style = _STYLES.get(change.change, "")
        session.screen.words([clock_time(now), change.subject, change.id, Cell(change.change, style), change.detail])
