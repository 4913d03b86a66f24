"""master.rpc.registrations: how long the line is, and when the rest should come"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.rpc.registrations import (
    FIRST_COST_SECONDS,
    MAX_DELAY_SECONDS,
    MAX_LINE_SECONDS,
    RegistrationLine,
)

ROOM = int(MAX_LINE_SECONDS / FIRST_COST_SECONDS) + 1
"""Registrations in a line that is full, at the assumed cost."""


class Line:
    """A line on a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.line = RegistrationLine(lambda: self.now)

    def handle(self, count: int, seconds: float) -> None:
        """Each takes so long."""
        for _ in range(count):
            self.now += seconds
            self.line.leave()


def test_line_takes_as_many_as_can_be_handled_in_a_few_seconds() -> None:
    world = Line()
    taken = sum(world.line.arrive() for _ in range(10_000))
    assert taken == ROOM
    assert world.line.is_full
    world.handle(1, FIRST_COST_SECONDS)
    assert (world.line.arrive(), world.line.arrive()) == (True, False)


def test_the_rest_come_evenly_at_the_pace_of_the_line() -> None:
    world = Line()
    for _ in range(ROOM):
        world.line.arrive()
    turns = [world.line.next_turn() for _ in range(8_000)]
    assert turns[0] == pytest.approx(MAX_LINE_SECONDS / 2, rel=0.01)
    gaps = {round(later - earlier, 6) for earlier, later in pairwise(turns)}
    assert gaps == {FIRST_COST_SECONDS}


def test_nobody_is_sent_away_for_longer_than_a_worker_accepts() -> None:
    world = Line()
    turns = [world.line.next_turn() for _ in range(100_000)]
    assert max(turns) == pytest.approx(MAX_DELAY_SECONDS)
    world.now += 3600.0
    assert world.line.next_turn() == 0.0


def test_cost_follows_the_pace_of_the_line() -> None:
    world = Line()
    for _ in range(500):
        world.line.arrive()
    world.handle(499, 0.008)
    assert world.line.cost_seconds == pytest.approx(0.008, rel=0.01)


def test_time_without_a_line_is_no_cost() -> None:
    world = Line()
    for _ in range(100):
        world.line.arrive()
        world.handle(1, 20.0)
    assert world.line.cost_seconds == FIRST_COST_SECONDS


def test_stall_hardly_changes_the_cost() -> None:
    world = Line()
    for _ in range(10):
        world.line.arrive()
    world.handle(1, 0.003)
    world.handle(1, 60.0)
    assert world.line.cost_seconds < 2 * FIRST_COST_SECONDS


@pytest.mark.parametrize(
    ("workers", "timeout_seconds", "expected"),
    [(0, 30.0, 0.0), (100, 30.0, 0.0), (3_000, 30.0, 9.0), (10_000, 30.0, 15.0), (1_000_000, 600.0, 60.0)],
)
def test_workers_spread_their_return_over_the_time_that_it_takes(
    workers: int, timeout_seconds: float, expected: float
) -> None:
    assert RegistrationLine().spread_seconds(workers, timeout_seconds) == pytest.approx(expected)


@given(st.lists(st.sampled_from(("arrive", "leave", "turn", "wait")), max_size=200))
def test_no_order_of_events_gives_a_turn_in_the_past(events: list[str]) -> None:
    world = Line()
    for event in events:
        if event == "arrive":
            world.line.arrive()
        elif event == "leave" and world.line.waiting:
            world.handle(1, 0.01)
        elif event == "turn":
            assert 0.0 <= world.line.next_turn() <= MAX_DELAY_SECONDS
        else:
            world.now += 1.0
