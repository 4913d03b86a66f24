"""What is answered about tasks. Times are Unix seconds, rounded to milliseconds.

An answer about a task has the fields of its ``TaskRequest``; they are taken from there.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, get_type_hints

from msgspec import Meta, Struct, defstruct

from fleetpulse.master.api.answers import Count, ResponseModel, Time
from fleetpulse.master.tasks import records
from fleetpulse.master.tasks.records import AttemptStatus, Outcome, TaskStatus
from fleetpulse.master.tasks.request import SECRETS, TaskRequest

_NOTHING = Outcome()
_REASON = "How it ended badly, in one word for programs: exit_code, out_of_memory, timeout, image_not_found …"

ExitCode = Annotated[int | None, Meta(description="Null where there never was a container.")]
OomKilled = Annotated[bool | None, Meta(description="Whether the kernel killed it for its memory limit.")]
Reason = Annotated[str | None, Meta(description=_REASON)]
ErrorText = Annotated[str | None, Meta(description="The same in words for people.")]


class Ended(ResponseModel):
    """The end of a task or of an attempt, as a server-sent event."""

    attempt: Count
    status: str
    exit_code: ExitCode
    oom_killed: OomKilled
    reason: Reason
    error: ErrorText

    @classmethod
    def of(cls, attempt: int, status: str, outcome: Outcome) -> Self:
        return cls(attempt, status, *outcome)


class Attempt(ResponseModel):
    """One run of a task on a worker."""

    attempt: Count
    worker_id: str
    status: AttemptStatus
    gpu_uuids: Sequence[str]
    container_id: str | None
    assigned_at: Time
    preparing_at: Time | None
    running_at: Time | None
    finished_at: Time | None
    exit_code: ExitCode
    oom_killed: OomKilled
    reason: Reason
    error: ErrorText

    @classmethod
    def of(cls, attempt: records.Attempt, *more: Any) -> Self:
        return cls(
            attempt.attempt,
            attempt.worker_id,
            attempt.status,
            attempt.gpu_uuids,
            attempt.container_id,
            *_rounded(attempt.assigned_at, attempt.preparing_at, attempt.running_at, attempt.finished_at),
            *list[Any](attempt.outcome),
            *more,
        )


class Assignment(Attempt):
    """An attempt as something that its worker was given."""

    task_id: str
    task_status: TaskStatus
    name: str
    docker_image: str
    cpu_required: float
    memory_required: Count
    gpu_required: Count
    priority: Count

    @classmethod
    def of_task(cls, attempt: records.Attempt, task: records.Task) -> Self:
        return cls.of(attempt, task.task_id, task.status, *_assigned(task.request))


_assigned = attrgetter(*Assignment.__struct_fields__[-6:])


class TaskEvent(ResponseModel):
    """One line of a task's history."""

    time: Time
    kind: str
    """submitted, assigned, preparing, progress, running, completed, failed, stopped, lost, requeued, cancel_requested
    or cancelled."""
    message: str
    attempt: int | None
    """Null: about the task as a whole."""

    @classmethod
    def of(cls, event: records.TaskEvent) -> Self:
        return cls(round(event.time, 3), event.kind, event.message, event.attempt or None)


class _TaskState(ResponseModel):
    task_id: str
    status: TaskStatus
    queue_reason: str | None
    """Why a queued task waits."""
    worker_id: str | None
    """Where it is, or where it ended; null while it is queued."""
    attempt: Count
    """The number of the newest attempt; 0 before the first."""
    retries_used: Count
    exit_code: ExitCode
    oom_killed: OomKilled
    reason: Reason
    error: ErrorText
    created_at: Time
    pending_at: Time | None
    running_at: Time | None
    finished_at: Time | None
    cancel_requested_at: Time | None
    not_before: Time | None
    """Until when a queued task waits after a failed attempt."""

    @classmethod
    def of(cls, task: records.Task, attempt: records.Attempt | None, queue_reason: str | None, *more: Any) -> Self:
        """``attempt`` is the newest one. The outcome of a task that has not ended is in its attempts."""
        is_placed = attempt is not None and task.status is not TaskStatus.QUEUED
        request = task.request
        return cls(
            task.task_id,
            task.status,
            queue_reason,
            attempt.worker_id if attempt is not None and is_placed else None,
            task.attempt,
            task.retries_used,
            *(task.outcome if task.status.is_terminal else _NOTHING),
            *_rounded(*_times(task)),
            *more,
            *_shown(request),
            *(dict.fromkeys(getattr(request, name)) for name in SECRETS),
        )


class _TaskInList(_TaskState):
    truncated: Sequence[str]
    """Those of `command`, `env`, `labels` and `constraints` that have over 4 KiB of JSON. They are empty here;
    `/api/tasks/{task_id}` has them."""


class _TaskHistory(_TaskState):
    attempts: list[Attempt]
    """The oldest first; so are the events."""
    events: list[TaskEvent]

    @classmethod
    def of_details(cls, details: records.TaskDetails, queue_reason: str | None) -> Self:
        attempts = [Attempt.of(attempt) for attempt in details.attempts]
        events = [TaskEvent.of(event) for event in details.events]
        return cls.of(details.task, newest(details.attempts), queue_reason, attempts, events)


_times = attrgetter(*_TaskState.__struct_fields__[-6:])
_shown = attrgetter(*(name for name in TaskRequest.model_fields if name not in SECRETS))


def _with_request(name: str, base: type[_TaskState], text: str) -> type[Struct]:
    """Returns the answer with the fields of a request, in the order in which ``_TaskState.of`` gives them."""
    types = get_type_hints(TaskRequest) | dict.fromkeys(SECRETS, dict[str, None])
    names = [*(name for name in TaskRequest.model_fields if name not in SECRETS), *SECRETS]
    texts = {name: TaskRequest.model_fields[name].description for name in names}
    fields = [(name, Annotated[types[name], Meta(description=texts[name])]) for name in names]
    return defstruct(name, fields, bases=(base,), module=__name__, namespace={"__doc__": text})


if TYPE_CHECKING:  # the fields of a request are added at run time
    Task: TypeAlias = _TaskState
    ListedTask: TypeAlias = _TaskInList
    TaskDetails: TypeAlias = _TaskHistory
else:
    Task = _with_request("Task", _TaskState, "A task with its present state.")
    ListedTask = _with_request("ListedTask", _TaskInList, "A task in a list, without what is large.")
    TaskDetails = _with_request("TaskDetails", _TaskHistory, "A task with all its attempts and its history.")


class DrainState(ResponseModel):
    """Whether a worker is being drained."""

    worker_id: str
    draining: bool
    reason: str | None


class LogPart(ResponseModel):
    """Bytes `offset` to `next_offset` of an attempt's log, as text."""

    task_id: str
    attempt: Count
    offset: Count
    next_offset: Count
    """Where to go on."""
    size: Count
    """Bytes that there are."""
    complete: bool
    """Nothing will come after this."""
    logs: str
    """What is not UTF-8 is shown as U+FFFD; no character is cut at a page's end."""


def newest(attempts: Sequence[records.Attempt]) -> records.Attempt | None:
    """Returns the attempt with the highest number."""
    return max(attempts, key=lambda attempt: attempt.attempt, default=None)


def _rounded(*times: float | None) -> list[Any]:
    return [None if time is None else round(time, 3) for time in times]
