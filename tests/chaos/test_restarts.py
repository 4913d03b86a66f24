"""tests.chaos.restarts: the checker finds what it looks for"""

import pytest

from tests.chaos.restarts import TaskEnd, check
from tests.e2e.fleet_restarts import Comeback

GOOD = Comeback(
    workers=500, back=500, seconds=9.0, wasted_streams=3, asked_to_come_later=200, falsely_inactive=0, lost_attempts=0,
    is_held=False,
)  # fmt: skip


def test_attempts_that_never_reached_their_worker_are_no_fault_while_the_tasks_go_on() -> None:
    assert list(check([GOOD._replace(lost_attempts=9)], [TaskEnd("a", True, "completed", 1)])) == []


def test_nothing_is_wrong_with_a_fleet_that_is_back_and_tasks_that_went_on() -> None:
    tasks = [TaskEnd("a", must_have_ended=True, status="completed", attempts=1), TaskEnd("b", False, "running", 1)]
    assert list(check([GOOD, GOOD], tasks)) == []


@pytest.mark.parametrize(
    ("comeback", "words"),
    [
        (GOOD._replace(back=499), "499 of 500 workers were back after 9 s"),
        (GOOD._replace(wasted_streams=11), "11 streams were wasted"),
        (GOOD._replace(falsely_inactive=1), "1 workers were falsely inactive"),
        (GOOD._replace(is_held=True), "attempts of lost workers are still held"),
    ],
)
def test_each_fault_of_a_comeback_is_found(comeback: Comeback, words: str) -> None:
    assert list(check([GOOD, comeback], [])) == [f"restart 2: {words}"]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (TaskEnd("a", True, "failed", 1), "failed, and ran 1 times, not completed in its first run"),
        (TaskEnd("a", True, "completed", 2), "completed, and ran 2 times, not completed in its first run"),
        (TaskEnd("a", False, "completed", 1), "completed, and ran 1 times, not running in its first run"),
    ],
)
def test_each_task_that_did_not_go_on_is_found(task: TaskEnd, words: str) -> None:
    assert list(check([GOOD], [task])) == [f"task a is {words}"]
