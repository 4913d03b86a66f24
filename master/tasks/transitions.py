"""Every move that a task can make: ``(task, attempt, event) -> Change``. Pure; the caller brings time and ids.

    queued ──placed──> pending ──running──> running ──completed──> completed
      ^                   │                    │
      │                   └──failed, lost──────┤
      └────── retries left ────────────────────┤
                                               ├── no retries left ──> failed
      cancel (at once when queued) ────────────┴── cancel was asked ──> cancelled

An illegal move raises and says from where to where. ``StaleReport`` is for a report about an earlier attempt.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from fleetpulse.master.errors import IllegalTransition, StaleReport, TaskAlreadyFinished
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Outcome, Task, TaskEvent, TaskStatus
from fleetpulse.master.tasks.request import TaskRequest

RETRY_INITIAL_SECONDS = 1.0
RETRY_CAP_SECONDS = 60.0
FREE_LOSSES = 10
"""Attempts that may be lost or fail to start; later ones use up retries, or a task that kills its worker would come
back for ever."""

MACHINE_REASONS = frozenset({"disk_full", "docker_unavailable"})
"""Reasons that are the worker's own."""

IMAGE_REASONS = frozenset({"image_not_found", "image_invalid"})
"""Another worker may have the image, or the login, or the architecture; trying again on the same one is useless."""

UNCLEAR_REASONS = IMAGE_REASONS | {"image_pull_failed", "container_failed"}
"""Reasons that may be the worker's or the task's."""

START_FAILURES = MACHINE_REASONS | UNCLEAR_REASONS
"""Why an attempt may fail before its command runs, where another worker may be able to run it."""

MAX_WORKERS_TRIED = 3
"""On so many workers a task is tried without using up a retry, before the failure counts as its own."""

_SECRETS_LOST = Outcome(
    reason="secrets_lost",
    error="the values of its env cannot be read: the key that sealed them is not the master's; submit it again",
)


class Instruction(Enum):
    """What to tell the attempt's worker once a change is durable."""

    START = auto()
    STOP = auto()


class Change(NamedTuple):
    """The new state, and what follows from it."""

    task: Task
    attempt: Attempt | None
    events: Sequence[TaskEvent] = ()
    instruction: Instruction | None = None


class Report(NamedTuple):
    """A worker's report of one attempt, checked. ``message`` of a ``PREPARING`` one is the progress of a pull."""

    task_id: str
    attempt: int
    status: AttemptStatus
    container_id: str | None = None
    outcome: Outcome = Outcome()
    message: str = ""


def submitted(task_id: str, request: TaskRequest, now: float, submitter: str | None = None) -> Change:
    """A new task, queued."""
    task = Task(task_id, request, TaskStatus.QUEUED, created_at=now, submitter=submitter)
    return Change(task, None, (TaskEvent(task_id, now, "submitted", request.docker_image),))


def placed(task: Task, worker_id: str, gpu_uuids: tuple[str, ...], now: float) -> Change:
    """The next attempt begins on this worker."""
    if task.status is not TaskStatus.QUEUED:
        raise IllegalTransition(task.task_id, task.status, TaskStatus.PENDING)
    number = task.attempt + 1
    attempt = Attempt(task.task_id, number, worker_id, AttemptStatus.ASSIGNED, assigned_at=now, gpu_uuids=gpu_uuids)
    task = task._replace(status=TaskStatus.PENDING, attempt=number, pending_at=now, running_at=None, not_before=None)
    event = TaskEvent(task.task_id, now, "assigned", f"to worker {worker_id}", number)
    return Change(task, attempt, (event,), Instruction.START)


def reported(
    task: Task, attempt: Attempt | None, worker_id: str, report: Report, now: float, *, has_other_worker: bool = False
) -> Change | None:
    """The worker reports the attempt's status; ``None`` when that was known.

    ``has_other_worker``: an attempt that fails to start may be tried on another worker, and then uses up no retry.

    Raises ``StaleReport`` unless the attempt is the task's current one, the worker's own, and live.
    """
    if attempt is None or report.attempt != attempt.attempt or worker_id != attempt.worker_id:
        raise StaleReport(f"attempt {report.attempt} of {report.task_id} is not the current one of {worker_id}")
    if attempt.status.is_terminal or task.status.is_terminal:
        raise StaleReport(f"attempt {report.attempt} of {report.task_id} has ended as {attempt.status}")
    if report.status.is_terminal:
        return _ended(task, attempt, report, now, has_other_worker)
    if report.status is AttemptStatus.RUNNING:
        return _running(task, attempt, report, now)
    return _preparing(task, attempt, report, now)


def cancelled(task: Task, attempt: Attempt | None, now: float) -> Change | None:
    """Somebody cancels the task; ``None`` when that was known. Raises ``TaskAlreadyFinished``."""
    if task.status.is_terminal:
        raise TaskAlreadyFinished(f"task {task.task_id} has ended already: it is {task.status}")
    if task.cancel_requested_at is not None:
        return None
    task = task._replace(cancel_requested_at=now)
    if attempt is None or attempt.status.is_terminal:  # between two attempts the caller may have the last one
        event = TaskEvent(task.task_id, now, "cancel_requested")
        return _finished(task, None, TaskStatus.CANCELLED, Outcome(reason="cancelled"), now, event)
    event = TaskEvent(task.task_id, now, "cancel_requested", attempt=attempt.attempt)
    return Change(task, attempt, (event,), Instruction.STOP)


def lost(task: Task, attempt: Attempt, reason: str, now: float) -> Change:
    """Nobody will report the attempt's end. One that had not begun to run uses up no retry."""
    if attempt.status.is_terminal:
        raise IllegalTransition(f"{attempt.task_id}/{attempt.attempt}", attempt.status, AttemptStatus.LOST)
    had_run = attempt.status is AttemptStatus.RUNNING or task.attempt - task.retries_used > FREE_LOSSES
    outcome = Outcome(reason="worker_lost", error=reason)
    ended = attempt._replace(status=AttemptStatus.LOST, finished_at=now, outcome=outcome)
    event = TaskEvent(task.task_id, now, "lost", reason, attempt.attempt)
    return _after(task, ended, event, TaskStatus.FAILED, now, uses_retry=had_run)


def secrets_lost(task: Task, now: float) -> Change:
    """The environment of a queued task cannot be decrypted any more."""
    if task.status is not TaskStatus.QUEUED:
        raise IllegalTransition(task.task_id, task.status, TaskStatus.FAILED)
    return _finished(task, None, TaskStatus.FAILED, _SECRETS_LOST, now)


def retry_delay_seconds(retries_used: int) -> float:
    """The pause before the attempt that follows: 1 s, 2 s, 4 s, ... 60 s at most."""
    return float(min(RETRY_INITIAL_SECONDS * 2 ** min(max(retries_used - 1, 0), 10), RETRY_CAP_SECONDS))


def _preparing(task: Task, attempt: Attempt, report: Report, now: float) -> Change | None:
    if attempt.status is AttemptStatus.RUNNING:
        return None  # late, or repeated
    if attempt.status is AttemptStatus.PREPARING and not report.message:
        return None
    kind = "progress" if attempt.status is AttemptStatus.PREPARING else "preparing"
    event = TaskEvent(task.task_id, now, kind, report.message, attempt.attempt)
    attempt = attempt._replace(status=AttemptStatus.PREPARING, preparing_at=attempt.preparing_at or now)
    return Change(task, attempt, (event,))


def _running(task: Task, attempt: Attempt, report: Report, now: float) -> Change | None:
    if attempt.status is AttemptStatus.RUNNING:
        return None
    attempt = attempt._replace(status=AttemptStatus.RUNNING, running_at=now, container_id=report.container_id)
    event = TaskEvent(task.task_id, now, "running", f"on worker {attempt.worker_id}", attempt.attempt)
    return Change(task._replace(status=TaskStatus.RUNNING, running_at=now), attempt, (event,))


def failed_to_start(attempt: Attempt, report: Report) -> bool:
    """Whether the attempt fails before its command ran, for a reason that another worker may not have."""
    is_failed = report.status is AttemptStatus.FAILED and attempt.status is not AttemptStatus.RUNNING
    return is_failed and report.outcome.reason in START_FAILURES


def _ended(task: Task, attempt: Attempt, report: Report, now: float, has_other_worker: bool) -> Change:
    ended = attempt._replace(
        status=report.status,
        finished_at=now,
        container_id=report.container_id or attempt.container_id,
        outcome=report.outcome,
    )
    event = TaskEvent(task.task_id, now, str(report.status), report.outcome.error or "", attempt.attempt)
    if report.status is AttemptStatus.COMPLETED:
        return _after(task, ended, event, TaskStatus.COMPLETED, now)
    if not failed_to_start(attempt, report):
        return _after(task, ended, event, TaskStatus.FAILED, now)
    is_free = task.attempt - task.retries_used <= FREE_LOSSES
    if is_free and (has_other_worker or report.outcome.reason in MACHINE_REASONS):
        return _after(task, ended, event, TaskStatus.FAILED, now, uses_retry=False)
    return _after(task, ended, event, TaskStatus.FAILED, now, may_retry=report.outcome.reason not in IMAGE_REASONS)


def _after(
    task: Task,
    ended: Attempt,
    event: TaskEvent,
    end: TaskStatus,
    now: float,
    *,
    uses_retry: bool = True,
    may_retry: bool = True,
) -> Change:
    """Finishes the task of an attempt that has ended, or queues it again."""
    if end is TaskStatus.COMPLETED:
        return _finished(task, ended, end, ended.outcome, now, event)
    if task.cancel_requested_at is not None:
        return _finished(task, ended, TaskStatus.CANCELLED, ended.outcome._replace(reason="cancelled"), now, event)
    retries_used = task.retries_used + uses_retry
    if retries_used > task.request.max_retries or not may_retry:
        return _finished(task, ended, end, ended.outcome, now, event)
    if task.env_is_lost:
        return _finished(task, ended, end, _SECRETS_LOST, now, event)
    delay, message = 0.0, "the attempt had not begun to run, so it uses up no retry"
    if uses_retry:
        delay, message = retry_delay_seconds(retries_used), f"retry {retries_used} of {task.request.max_retries}"
    requeued = TaskEvent(task.task_id, now, "requeued", message)
    task = task._replace(
        status=TaskStatus.QUEUED, retries_used=retries_used, not_before=now + delay, outcome=ended.outcome
    )
    return Change(task, ended, (event, requeued))


def _finished(
    task: Task, attempt: Attempt | None, end: TaskStatus, outcome: Outcome, now: float, *events: TaskEvent
) -> Change:
    task = task._replace(status=end, finished_at=now, outcome=outcome, not_before=None)
    # An attempt that ended as the task does has an event of that kind already.
    if not events or str(end) != events[-1].kind:
        events = (*events, TaskEvent(task.task_id, now, str(end), outcome.error or ""))
    return Change(task, attempt, events)
