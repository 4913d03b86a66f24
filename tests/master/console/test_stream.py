"""master.console.stream: server-sent events, reconnects, and the fleet that they build"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.errors import ConsoleError, UnknownId, Unreachable
from fleetpulse.master.console.stream import (
    FleetSnapshot,
    FleetWatcher,
    ReconnectPolicy,
    StreamEvent,
    apply_event,
    follow_stream,
    parse_events,
)
from tests.master.console.fake_master import Answer, FakeMaster, Request, event, events, problem
from tests.master.console.records import worker

STREAM = (
    b"retry: 2000\n\n: still here\n\n"
    + event({"a": 1}, "status")
    + event("gr\u00fc\u00dfe", None, "1-2")
    + b"data: 1\r\n\r\n"
)
EVENTS = [
    StreamEvent("status", {"a": 1}, None),
    StreamEvent("message", "gr\u00fc\u00dfe", "1-2"),
    StreamEvent("message", 1, "1-2"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6).map(sorted))
def test_events_are_parsed_from_chunks_of_any_size(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(STREAM)]
    assert list(parse_events(STREAM[a:b] for a, b in itertools.pairwise(bounds))) == EVENTS


def followed(client: MasterClient, notes: list[str], seconds: float = 60.0) -> list[StreamEvent]:
    """The events of ``/log`` up to its end, without real pauses."""
    ticks = iter(range(1000))
    policy = ReconnectPolicy(notes.append, lambda _: None, seconds, lambda: float(next(ticks)))
    return list(follow_stream(client, "/log", {"follow": "true"}, policy, last="end"))


def test_broken_stream_resumes_after_the_last_event(master: FakeMaster, client: MasterClient) -> None:
    def second(request: Request) -> Answer:
        assert request.headers["Last-Event-ID"] == "1-3"
        return events(event({"logs": "b"}, None, "1-4"), event({}, "end"))

    restarting = problem(503, "the master stops", **{"Retry-After": "1"})
    first = events(event({"logs": "a"}, None, "1-3"))
    master.on("GET", "/log", first, restarting, Answer(is_broken=True), second)
    notes: list[str] = []
    seen = followed(client, notes)
    assert [one.data.get("logs") for one in seen] == ["a", "b", None]
    assert len(notes) == 1
    assert "trying again" in notes[0]


def test_problem_event_is_retried_unless_it_is_permanent(master: FakeMaster, client: MasterClient) -> None:
    passing = events(event({"status": 503, "detail": "the master stops"}, "problem"))
    lasting = events(event({"status": 410, "detail": "the log was deleted"}, "problem"))
    master.on("GET", "/log", events(event({}, "status")), passing, lasting)
    with pytest.raises(ConsoleError, match="deleted"):
        followed(client, [])
    assert len(master.requests) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(404, "no task"), "no task"),
        (problem(503, "too many readers follow"), "too many"),
        (Answer({}), "is not an event stream"),
        (Answer(b"data: {\n\n", 200, "text/event-stream"), "cannot be parsed"),
        (Answer(is_broken=True), "cannot reach"),
    ],
)
def test_bad_first_answer_fails_at_once(master: FakeMaster, client: MasterClient, answer: Any, message: str) -> None:
    master.on("GET", "/log", answer)
    with pytest.raises(ConsoleError, match=message):
        followed(client, [])
    assert len(master.requests) == 1


def test_retries_end_after_the_time_limit(master: FakeMaster, client: MasterClient) -> None:
    master.on("GET", "/log", events(event({}, "status")), Answer(is_broken=True))
    with pytest.raises(Unreachable):
        followed(client, [], seconds=5.0)


Start = Callable[..., tuple["queue.SimpleQueue[FleetSnapshot]", "queue.SimpleQueue[str]"]]


def test_stream_events_build_the_fleet() -> None:
    fleet: FleetSnapshot = {"old": {}}
    is_complete = True
    seen = []
    for kind, data in (
        ("reset", {"reason": "start", "workers": 2}),
        ("snapshot", {"workers": {"a": {"n": 1}}, "complete": False}),
        ("snapshot", {"workers": {"b": {"n": 1}}, "complete": True}),
        ("update", {"workers": {"a": {"n": 2}, "c": {"n": 1}}}),
        ("removed", {"worker_ids": ["b"]}),
        ("unheard_of", None),
    ):
        fleet, is_complete = apply_event(fleet, StreamEvent(kind, data, None), is_complete=is_complete)
        seen.append((sorted(fleet), is_complete))
    assert seen == [
        ([], False), (["a"], False), (["a", "b"], True),
        (["a", "b", "c"], True), (["a", "c"], True), (["a", "c"], True),
    ]  # fmt: skip
    assert fleet["a"] == {"n": 2}


@pytest.fixture
def start(master: FakeMaster) -> Iterator[Start]:
    watchers = []

    def start() -> tuple["queue.SimpleQueue[FleetSnapshot]", "queue.SimpleQueue[str]"]:
        fleets: queue.SimpleQueue[FleetSnapshot] = queue.SimpleQueue()
        errors: queue.SimpleQueue[str] = queue.SimpleQueue()
        client = MasterClient(master.url)
        watcher = FleetWatcher(client, on_fleet=fleets.put, on_error=errors.put, poll_seconds=0.01)
        watcher.start()
        watchers.append(watcher)
        return fleets, errors

    yield start
    for watcher in watchers:
        watcher.stop()
        assert not watcher._thread.is_alive()


def test_master_without_a_stream_is_polled(master: FakeMaster, start: Start) -> None:
    master.on("GET", "/api/workers", Answer([worker("a")]), problem(503, "away"), Answer([worker("a"), worker("b")]))
    fleets, errors = start()
    assert list(fleets.get(timeout=10)) == ["a"]
    assert list(fleets.get(timeout=10)) == ["a", "b"]
    assert "away" in errors.get(timeout=10)


def test_stop_interrupts_the_stream(master: FakeMaster, start: Start) -> None:
    released = threading.Event()

    def stream(_: Request) -> Answer:
        def pieces() -> Iterator[bytes]:
            yield event({"workers": {"a": {}}, "complete": True}, "snapshot", "x-1")
            released.wait(20)

        return Answer(content_type="text/event-stream", pieces=pieces())  # type: ignore[arg-type] # sent as it comes

    master.on("GET", "/telemetry/stream", stream)
    fleets, _ = start()
    assert fleets.get(timeout=10) == {"a": {}}
    assert master.requests[0].query == {"fields": "summary"}
    # The fixture stops the watcher, which must not wait for the master.
    released.set()


def test_stream_of_another_server_is_reported(master: FakeMaster, start: Start) -> None:
    master.on("GET", "/telemetry/stream", events(event({"workers": 7}, "update")))
    _, errors = start()
    assert "shape of a master's" in errors.get(timeout=10)


def test_missing_stream_is_an_unknown_id(master: FakeMaster, client: MasterClient) -> None:
    with pytest.raises(UnknownId), client.stream("/telemetry/stream"):
        pass
