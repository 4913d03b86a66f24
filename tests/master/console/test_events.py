"""master.console.events: changes of workers and tasks"""

import json

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.events import FleetChange, fetch_tasks, task_changes, worker_changes
from fleetpulse.master.console.stream import FleetSnapshot
from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, event, events
from tests.master.console.records import task


def test_changes_between_two_fleets() -> None:
    before: FleetSnapshot = {"a": {"is_active": True}, "b": {"is_active": False}, "c": {}, "d": {"is_active": True}}
    after: FleetSnapshot = {
        "a": {"is_active": False}, "b": {"is_active": True}, "d": {"is_active": True, "draining": True},
        "e": {"is_active": True, "hostname": "h"},
    }  # fmt: skip
    assert set(worker_changes(before, after)) == {
        FleetChange("worker", "a", "inactive", ""), FleetChange("worker", "b", "active", ""),
        FleetChange("worker", "c", "left", ""), FleetChange("worker", "d", "draining", ""),
        FleetChange("worker", "e", "joined", "h"),
    }  # fmt: skip


def test_changes_between_two_lists_of_tasks() -> None:
    before = {"a": task("a"), "b": task("b", "queued", queue_reason="no room"), "c": task("c")}
    after: FleetSnapshot = {
        "a": task("a", "failed", exit_code=3, error="exit code 3"), "b": task("b", "queued", queue_reason="still none"),
        "c": task("c"), "d": task("d", "completed", exit_code=0),
    }  # fmt: skip
    assert list(task_changes(before, after)) == [
        FleetChange("task", "a", "failed", "on worker-1, exit code 3"),
        FleetChange("task", "d", "completed", "on worker-1, exit code 0"),
    ]


def test_task_that_ended_between_two_polls_is_fetched(master: FakeMaster, client: MasterClient) -> None:
    master.get("/api/tasks", [])
    master.get("/api/tasks/a", task("a", "completed"))
    found = fetch_tasks(client, {"a": task("a"), "gone": task("gone"), "old": task("old", "failed")})
    assert {task_id: one["status"] for task_id, one in found.items()} == {"a": "completed"}


def test_events_are_lines_of_json(run: Run, master: FakeMaster) -> None:
    master.on("GET", "/api/tasks", *[Answer([task("t", "queued")])] * 2, Answer([task("t", "completed", exit_code=0)]))
    master.on("GET", "/telemetry/stream", events(
        event({"workers": {"w": {"is_active": True}}, "complete": True}, "snapshot", "x-1"),
        event({"workers": {"w": {"is_active": False}}}, "update", "x-2"),
    ))  # fmt: skip
    result = run("events", "--json", "--for", "2.5s")
    assert result.exit_code == 0
    changes = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(one["subject"], one["id"], one["change"]) for one in changes} >= {
        ("worker", "w", "inactive"),
        ("task", "t", "completed"),
    }
    assert all(isinstance(one["time"], float) for one in changes)
