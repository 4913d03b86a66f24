"""master.tasks.transitions: every move that a task can make, and those that it cannot"""

import pytest

from fleetpulse.master.errors import IllegalTransition, StaleReport, TaskAlreadyFinished
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Outcome, Task, TaskStatus
from fleetpulse.master.tasks.transitions import (
    FREE_LOSSES,
    RETRY_CAP_SECONDS,
    Change,
    Instruction,
    Report,
    cancelled,
    lost,
    placed,
    reported,
    retry_delay_seconds,
    submitted,
)
from tests.master.requests import task_request

NO_OUTCOME = Outcome()
EXIT_3 = Outcome(exit_code=3, oom_killed=False, reason="exit_code", error="the command ended with exit code 3")
EXIT_0 = Outcome(exit_code=0, oom_killed=False)
KILLED = Outcome(exit_code=137, oom_killed=False, reason="stopped")
ENDS = [AttemptStatus.COMPLETED, AttemptStatus.FAILED, AttemptStatus.STOPPED]
TERMINAL_TASKS = [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED]


def a_task(max_retries: int = 0) -> Task:
    return submitted("t", task_request("busybox", max_retries=max_retries), 100.0).task


def an_assigned(max_retries: int = 0) -> tuple[Task, Attempt]:
    return both(placed(a_task(max_retries), "rack-7", ("g1",), 110.0))


def a_running(max_retries: int = 0) -> tuple[Task, Attempt]:
    return both(say(*an_assigned(max_retries), AttemptStatus.RUNNING, now=120.0, container_id="c1"))


def both(change: Change | None) -> tuple[Task, Attempt]:
    assert change is not None
    assert change.attempt is not None
    return change.task, change.attempt


def say(
    task: Task,
    attempt: Attempt,
    status: AttemptStatus,
    outcome: Outcome = NO_OUTCOME,
    *,
    now: float = 130.0,
    message: str = "",
    container_id: str | None = None,
) -> Change | None:
    """The attempt's own worker reports."""
    report = Report(task.task_id, attempt.attempt, status, container_id, outcome, message)
    return reported(task, attempt, attempt.worker_id, report, now)


def kinds(change: Change | None) -> list[str]:
    return [] if change is None else [event.kind for event in change.events]


def test_submitted_task_is_queued() -> None:
    change = submitted("t", task_request("busybox"), 100.0)
    assert (change.task.status, change.task.created_at, change.task.attempt) == (TaskStatus.QUEUED, 100.0, 0)
    assert (change.attempt, change.instruction) == (None, None)
    assert kinds(change) == ["submitted"]


def test_placed_task_has_an_attempt_to_start() -> None:
    change = placed(a_task(), "rack-7", ("g1", "g2"), 110.0)
    task, attempt = both(change)
    assert (task.status, task.attempt, task.pending_at) == (TaskStatus.PENDING, 1, 110.0)
    assert attempt == Attempt("t", 1, "rack-7", AttemptStatus.ASSIGNED, 110.0, ("g1", "g2"))
    assert change.instruction is Instruction.START
    assert [(event.kind, event.attempt) for event in change.events] == [("assigned", 1)]
    assert "rack-7" in change.events[0].message


@pytest.mark.parametrize("status", [status for status in TaskStatus if status is not TaskStatus.QUEUED])
def test_only_a_queued_task_can_be_placed(status: TaskStatus) -> None:
    with pytest.raises(IllegalTransition, match=f"from {status} to pending"):
        placed(a_task()._replace(status=status), "rack-7", (), 110.0)


def test_attempt_is_prepared_with_progress_then_runs() -> None:
    task, attempt = an_assigned()
    change = say(task, attempt, AttemptStatus.PREPARING, now=111.0, message="pulls busybox")
    task, attempt = both(change)
    assert (task.status, attempt.status, attempt.preparing_at) == (
        *(TaskStatus.PENDING, AttemptStatus.PREPARING),
        111.0,
    )
    assert kinds(change) == ["preparing"]
    change = say(task, attempt, AttemptStatus.PREPARING, now=112.0, message="half of it is here")
    task, attempt = both(change)
    assert attempt.preparing_at == 111.0
    assert change is not None
    assert [(event.kind, event.message) for event in change.events] == [("progress", "half of it is here")]
    change = say(task, attempt, AttemptStatus.RUNNING, now=120.0, container_id="c1")
    task, attempt = both(change)
    assert (task.status, task.running_at) == (TaskStatus.RUNNING, 120.0)
    assert (attempt.status, attempt.running_at, attempt.container_id) == (AttemptStatus.RUNNING, 120.0, "c1")
    assert kinds(change) == ["running"]


def test_repeated_reports_change_nothing() -> None:
    task, attempt = both(say(*an_assigned(), AttemptStatus.PREPARING))
    assert say(task, attempt, AttemptStatus.PREPARING) is None
    running = a_running()
    assert say(*running, AttemptStatus.RUNNING, container_id="c1") is None
    assert say(*running, AttemptStatus.PREPARING, message="said late") is None


@pytest.mark.parametrize(
    ("status", "outcome", "end", "events"),
    [
        (AttemptStatus.COMPLETED, EXIT_0, TaskStatus.COMPLETED, ["completed"]),
        (AttemptStatus.FAILED, EXIT_3, TaskStatus.FAILED, ["failed"]),
        (AttemptStatus.STOPPED, KILLED, TaskStatus.FAILED, ["stopped", "failed"]),
    ],
)
@pytest.mark.parametrize("runs", [True, False], ids=["running", "assigned"])
def test_without_retries_a_task_ends_as_its_attempt_does(
    status: AttemptStatus, outcome: Outcome, end: TaskStatus, events: list[str], runs: bool
) -> None:
    change = say(*(a_running() if runs else an_assigned()), status, outcome, container_id="c1")
    task, attempt = both(change)
    assert (task.status, task.finished_at, task.outcome) == (end, 130.0, outcome)
    assert (attempt.status, attempt.finished_at, attempt.outcome, attempt.container_id) == (
        status,
        130.0,
        outcome,
        "c1",
    )
    assert kinds(change) == events
    assert change is not None
    assert change.instruction is None


def test_failed_attempt_with_retries_left_queues_the_task_with_a_pause() -> None:
    change = say(*a_running(max_retries=2), AttemptStatus.FAILED, EXIT_3)
    task, attempt = both(change)
    assert (task.status, task.retries_used, task.not_before, task.finished_at) == (TaskStatus.QUEUED, 1, 131.0, None)
    assert (task.outcome, attempt.status) == (EXIT_3, AttemptStatus.FAILED)
    assert kinds(change) == ["failed", "requeued"]
    assert change is not None
    assert change.events[1].message == "retry 1 of 2"
    again = placed(task, "rack-8", (), 131.0)
    assert (again.task.attempt, again.task.not_before, again.task.running_at) == (2, None, None)


def test_task_fails_when_its_retries_are_used_up() -> None:
    task, attempt = an_assigned(max_retries=2)
    for number in (1, 2):
        task, _ = both(say(task, attempt, AttemptStatus.FAILED, EXIT_3))
        assert (task.status, task.retries_used) == (TaskStatus.QUEUED, number)
        task, attempt = both(placed(task, "rack-7", (), 140.0))
    task, _ = both(say(task, attempt, AttemptStatus.FAILED, EXIT_3))
    assert (task.status, task.retries_used, task.attempt) == (TaskStatus.FAILED, 2, 3)


def test_pauses_double_up_to_a_cap() -> None:
    assert [retry_delay_seconds(used) for used in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, RETRY_CAP_SECONDS]
    assert retry_delay_seconds(10**9) == RETRY_CAP_SECONDS
    assert retry_delay_seconds(0) == 1.0


@pytest.mark.parametrize(
    ("worker_id", "number"), [("rack-8", 1), ("rack-7", 2), ("rack-7", 0)], ids=["other worker", "future", "past"]
)
@pytest.mark.parametrize("status", [AttemptStatus.PREPARING, AttemptStatus.RUNNING, *ENDS])
def test_report_about_another_attempt_is_stale(worker_id: str, number: int, status: AttemptStatus) -> None:
    with pytest.raises(StaleReport):
        reported(*a_running(), worker_id, Report("t", number, status), 130.0)


@pytest.mark.parametrize("status", [AttemptStatus.PREPARING, AttemptStatus.RUNNING, *ENDS])
def test_report_after_the_end_is_stale(status: AttemptStatus) -> None:
    with pytest.raises(StaleReport):
        reported(a_task(), None, "rack-7", Report("t", 1, status), 130.0)
    for retries in (0, 1):
        for end in ENDS:
            task, attempt = both(say(*a_running(retries), end, EXIT_3))
            with pytest.raises(StaleReport):
                say(task, attempt, status)
        change = lost(*a_running(retries), "gone", 130.0)
        with pytest.raises(StaleReport):
            say(*both(change), status)


@pytest.mark.parametrize("bring_last_attempt", [True, False])
@pytest.mark.parametrize("has_run", [True, False])
def test_queued_task_is_cancelled_at_once(bring_last_attempt: bool, has_run: bool) -> None:
    task, attempt = a_task(max_retries=1), None
    if has_run:
        task, attempt = both(say(*a_running(max_retries=1), AttemptStatus.FAILED, EXIT_3))
    change = cancelled(task, attempt if bring_last_attempt else None, 140.0)
    assert change is not None
    assert (change.task.status, change.task.finished_at) == (TaskStatus.CANCELLED, 140.0)
    assert (change.task.cancel_requested_at, change.task.not_before) == (140.0, None)
    assert (change.task.outcome, change.instruction) == (Outcome(reason="cancelled"), None)
    assert kinds(change) == ["cancel_requested", "cancelled"]


@pytest.mark.parametrize("runs", [True, False], ids=["running", "assigned"])
def test_cancelled_task_of_a_worker_is_stopped_first(runs: bool) -> None:
    task, attempt = a_running() if runs else an_assigned()
    change = cancelled(task, attempt, 125.0)
    assert change is not None
    assert (change.task, change.attempt) == (task._replace(cancel_requested_at=125.0), attempt)
    assert change.instruction is Instruction.STOP
    assert [(event.kind, event.attempt) for event in change.events] == [("cancel_requested", 1)]
    assert cancelled(change.task, attempt, 126.0) is None, "that was known"


@pytest.mark.parametrize(
    ("status", "outcome", "end", "reason"),
    [
        (AttemptStatus.STOPPED, KILLED, TaskStatus.CANCELLED, "cancelled"),
        (AttemptStatus.FAILED, EXIT_3, TaskStatus.CANCELLED, "cancelled"),
        (AttemptStatus.COMPLETED, EXIT_0, TaskStatus.COMPLETED, None),
    ],
)
def test_final_status_of_a_cancelled_task(
    status: AttemptStatus, outcome: Outcome, end: TaskStatus, reason: str | None
) -> None:
    """One that came to its end before the stop did has that end; retries are none of its business any more."""
    task, attempt = a_running(max_retries=5)
    asked = cancelled(task, attempt, 125.0)
    assert asked is not None
    task, attempt = both(say(asked.task, attempt, status, outcome))
    assert (task.status, task.outcome.exit_code, task.outcome.reason) == (end, outcome.exit_code, reason)
    assert attempt.outcome == outcome, "the attempt keeps its own story"


def test_cancelled_task_whose_worker_is_lost_is_cancelled() -> None:
    task, attempt = a_running(max_retries=5)
    asked = cancelled(task, attempt, 125.0)
    assert asked is not None
    change = lost(asked.task, attempt, "worker rack-7 is gone", 160.0)
    assert (change.task.status, change.task.outcome.reason) == (TaskStatus.CANCELLED, "cancelled")
    assert kinds(change) == ["lost", "cancelled"]


@pytest.mark.parametrize("status", TERMINAL_TASKS)
def test_finished_task_cannot_be_cancelled(status: TaskStatus) -> None:
    with pytest.raises(TaskAlreadyFinished, match=str(status)):
        cancelled(a_task()._replace(status=status), None, 140.0)


def test_lost_attempt_that_ran_uses_a_retry() -> None:
    change = lost(*a_running(max_retries=1), "worker rack-7 is gone", 160.0)
    task, attempt = both(change)
    assert (task.status, task.retries_used, task.not_before) == (TaskStatus.QUEUED, 1, 161.0)
    assert (attempt.status, attempt.finished_at) == (AttemptStatus.LOST, 160.0)
    assert attempt.outcome == Outcome(reason="worker_lost", error="worker rack-7 is gone")
    assert kinds(change) == ["lost", "requeued"]


def test_task_without_retries_fails_with_its_worker() -> None:
    change = lost(*a_running(), "worker rack-7 is gone", 160.0)
    assert change.task.status is TaskStatus.FAILED
    assert change.task.outcome == Outcome(reason="worker_lost", error="worker rack-7 is gone")
    assert kinds(change) == ["lost", "failed"]


@pytest.mark.parametrize("prepares", [True, False])
def test_lost_attempt_that_had_not_run_uses_no_retry(prepares: bool) -> None:
    task, attempt = an_assigned()
    if prepares:
        task, attempt = both(say(task, attempt, AttemptStatus.PREPARING))
    change = lost(task, attempt, "worker rack-7 is gone", 160.0)
    assert (change.task.status, change.task.retries_used) == (TaskStatus.QUEUED, 0)
    assert change.task.not_before == 160.0, "it may go on at once"
    assert kinds(change) == ["lost", "requeued"]


@pytest.mark.parametrize("max_retries", [0, 2])
def test_task_that_kills_workers_before_it_runs_fails_in_the_end(max_retries: int) -> None:
    task, losses = a_task(max_retries), 0
    while task.status is TaskStatus.QUEUED:
        task, attempt = both(placed(task, "rack-7", (), 110.0))
        task = lost(task, attempt, "gone", 111.0).task
        losses += 1
    assert (task.status, losses) == (TaskStatus.FAILED, FREE_LOSSES + max_retries + 1)


@pytest.mark.parametrize("end", ENDS)
def test_finished_attempt_cannot_be_lost(end: AttemptStatus) -> None:
    task, attempt = both(say(*a_running(max_retries=1), end, EXIT_3))
    with pytest.raises(IllegalTransition, match=f"t/1 cannot go from {end} to lost"):
        lost(task, attempt, "gone", 160.0)


def test_attempt_numbers_are_never_used_twice() -> None:
    task = a_task(max_retries=3)
    numbers = []
    for _ in range(4):
        task, attempt = both(placed(task, "rack-7", (), 110.0))
        numbers.append(attempt.attempt)
        task, _ = both(say(task, attempt, AttemptStatus.FAILED, EXIT_3))
    assert numbers == [1, 2, 3, 4]
