"""master.console.feed, changes and events: the fleet as it changes"""

import json
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from fleetpulse.master.console.changes import Change, task_changes, worker_changes
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.errors import UnknownId
from fleetpulse.master.console.events import look
from fleetpulse.master.console.feed import Fleet, FleetFeed, applied
from fleetpulse.master.console.sse import Event
from tests.master.console.conftest import Run
from tests.master.console.fake_master import Answer, FakeMaster, Request, event, events, problem
from tests.master.console.given import task, worker

Start = Callable[..., tuple["queue.SimpleQueue[Fleet]", "queue.SimpleQueue[str]"]]


def test_events_make_a_fleet() -> None:
    fleet: Fleet = {"old": {}}
    is_whole = True
    seen = []
    for kind, data in (
        ("reset", {"reason": "start", "workers": 2}),
        ("snapshot", {"workers": {"a": {"n": 1}}, "complete": False}),
        ("snapshot", {"workers": {"b": {"n": 1}}, "complete": True}),
        ("update", {"workers": {"a": {"n": 2}, "c": {"n": 1}}}),
        ("removed", {"worker_ids": ["b"]}),
        ("unheard_of", None),
    ):
        fleet, is_whole = applied(fleet, Event(kind, data, None), is_whole=is_whole)
        seen.append((sorted(fleet), is_whole))
    assert seen == [
        ([], False), (["a"], False), (["a", "b"], True),
        (["a", "b", "c"], True), (["a", "c"], True), (["a", "c"], True),
    ]  # fmt: skip
    assert fleet["a"] == {"n": 2}


@pytest.fixture
def start(master: FakeMaster) -> Iterator[Start]:
    feeds = []

    def start() -> tuple["queue.SimpleQueue[Fleet]", "queue.SimpleQueue[str]"]:
        fleets: queue.SimpleQueue[Fleet] = queue.SimpleQueue()
        troubles: queue.SimpleQueue[str] = queue.SimpleQueue()
        client = MasterClient(master.url)
        feed = FleetFeed(client, on_fleet=fleets.put, on_trouble=troubles.put, poll_seconds=0.01)
        feed.start()
        feeds.append(feed)
        return fleets, troubles

    yield start
    for feed in feeds:
        feed.stop()
        assert not feed.is_alive


def test_without_a_stream_it_asks_again_and_again(master: FakeMaster, start: Start) -> None:
    master.on("GET", "/api/workers", Answer([worker("a")]), problem(503, "away"), Answer([worker("a"), worker("b")]))
    fleets, troubles = start()
    assert list(fleets.get(timeout=10)) == ["a"]
    assert list(fleets.get(timeout=10)) == ["a", "b"]
    assert "away" in troubles.get(timeout=10)


def test_it_ends_while_it_waits_for_the_stream(master: FakeMaster, start: Start) -> None:
    goes_on = threading.Event()

    def stream(_: Request) -> Answer:
        def pieces() -> Iterator[bytes]:
            yield event({"workers": {"a": {}}, "complete": True}, "snapshot", "x-1")
            goes_on.wait(20)

        return Answer(content_type="text/event-stream", pieces=pieces())  # type: ignore[arg-type] # sent as it comes

    master.on("GET", "/telemetry/stream", stream)
    fleets, _ = start()
    assert fleets.get(timeout=10) == {"a": {}}
    assert master.requests[0].query == {"fields": "summary"}
    # The fixture stops the feed, which must not wait for the master.
    goes_on.set()


def test_a_stream_of_somebody_else_is_told(master: FakeMaster, start: Start) -> None:
    master.on("GET", "/telemetry/stream", events(event({"workers": 7}, "update")))
    _, troubles = start()
    assert "none of a master's" in troubles.get(timeout=10)


def test_what_happens_to_workers() -> None:
    before: Fleet = {"a": {"is_active": True}, "b": {"is_active": False}, "c": {}, "d": {"is_active": True}}
    after: Fleet = {
        "a": {"is_active": False}, "b": {"is_active": True}, "d": {"is_active": True, "draining": True},
        "e": {"is_active": True, "hostname": "h"},
    }  # fmt: skip
    assert set(worker_changes(before, after)) == {
        Change("worker", "a", "inactive", ""), Change("worker", "b", "active", ""), Change("worker", "c", "left", ""),
        Change("worker", "d", "draining", ""), Change("worker", "e", "joined", "h"),
    }  # fmt: skip


def test_what_happens_to_tasks() -> None:
    before = {"a": task("a"), "b": task("b", "queued", queue_reason="no room"), "c": task("c")}
    after: Fleet = {
        "a": task("a", "failed", exit_code=3, error="exit code 3"), "b": task("b", "queued", queue_reason="still none"),
        "c": task("c"), "d": task("d", "completed", exit_code=0),
    }  # fmt: skip
    assert list(task_changes(before, after)) == [
        Change("task", "a", "failed", "on worker-1, exit code 3"),
        Change("task", "d", "completed", "on worker-1, exit code 0"),
    ]


def test_a_task_that_ended_between_two_looks_is_asked_for(master: FakeMaster, client: MasterClient) -> None:
    master.get("/api/tasks", [])
    master.get("/api/tasks/a", task("a", "completed"))
    found = look(client, {"a": task("a"), "gone": task("gone"), "old": task("old", "failed")})
    assert {task_id: one["status"] for task_id, one in found.items()} == {"a": "completed"}


def test_events_as_lines_of_json(run: Run, master: FakeMaster) -> None:
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


def test_an_unknown_stream_is_an_unknown_id(master: FakeMaster, client: MasterClient) -> None:
    with pytest.raises(UnknownId), client.stream("/telemetry/stream"):
        pass
