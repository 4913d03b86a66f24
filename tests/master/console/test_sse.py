"""master.console.sse: events in pieces, and connections that break"""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.errors import ConsoleError, Unreachable
from fleetpulse.master.console.sse import Event, follow, parse
from tests.master.console.fake_master import Answer, FakeMaster, Request, event, events, problem

STREAM = (
    b"retry: 2000\n\n: still here\n\n"
    + event({"a": 1}, "status")
    + event("gr\u00fc\u00dfe", None, "1-2")
    + b"data: 1\r\n\r\n"
)
EVENTS = [Event("status", {"a": 1}, None), Event("message", "gr\u00fc\u00dfe", "1-2"), Event("message", 1, "1-2")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6).map(sorted))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(STREAM)]
    assert list(parse(STREAM[a:b] for a, b in itertools.pairwise(bounds))) == EVENTS


def followed(client: MasterClient, notes: list[str], patience: float = 60.0) -> list[Event]:
    ticks = iter(range(1000))
    return list(
        follow(
            client, "/log", {"follow": "true"}, is_last=lambda one: one.kind == "end", note=notes.append,
            sleep=lambda _: None, patience_seconds=patience, clock=lambda: float(next(ticks)),
        )
    )  # fmt: skip


def test_a_stream_that_breaks_goes_on_where_it_broke(master: FakeMaster, client: MasterClient) -> None:
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


def test_a_problem_within_a_stream_is_tried_again_unless_it_lasts(master: FakeMaster, client: MasterClient) -> None:
    passing = events(event({"status": 503, "detail": "the master stops"}, "problem"))
    lasting = events(event({"status": 410, "detail": "the log was deleted"}, "problem"))
    master.on("GET", "/log", events(event({}, "status")), passing, lasting)
    with pytest.raises(ConsoleError, match="deleted"):
        followed(client, [])
    assert len(master.requests) == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (problem(404, "no task"), "no task"),
        (problem(503, "too many readers follow"), "too many"),
        (Answer({}), "answers no events"),
        (Answer(b"data: {\n\n", 200, "text/event-stream"), "no events of a master"),
        (Answer(is_broken=True), "cannot reach"),
    ],
)
def test_a_first_answer_that_is_none_is_told_at_once(
    master: FakeMaster, client: MasterClient, answer: Any, told: str
) -> None:
    master.on("GET", "/log", answer)
    with pytest.raises(ConsoleError, match=told):
        followed(client, [])
    assert len(master.requests) == 1


def test_at_last_it_gives_up(master: FakeMaster, client: MasterClient) -> None:
    master.on("GET", "/log", events(event({}, "status")), Answer(is_broken=True))
    with pytest.raises(Unreachable):
        followed(client, [], patience=5.0)
