"""What is answered about tasks, as types. They describe answers; tests hold real answers to them."""

from typing import Literal

from fleetpulse.master.api.answers import Count, ResponseModel, Time
from fleetpulse.master.tasks.records import AttemptStatus, TaskStatus


class _Outcome(ResponseModel):
    exit_code: int | None
    """Null where there never was a container."""
    oom_killed: bool | None
    """Whether the kernel killed it for its memory limit."""
    reason: str | None
    """How it ended badly, in one word for programs: exit_code, out_of_memory, timeout, image_not_found …"""
    error: str | None
    """The same in words for people."""


class Task(_Outcome):
    """A task with where it stands now."""

    task_id: str
    name: str
    status: TaskStatus
    queue_reason: str | None
    """Why a queued task waits."""
    worker_id: str | None
    """Where it is, or where it ended; null while it is queued."""
    attempt: Count
    """The number of the newest attempt; 0 before the first."""
    retries_used: Count
    created_at: Time
    pending_at: Time | None
    running_at: Time | None
    finished_at: Time | None
    cancel_requested_at: Time | None
    not_before: Time | None
    """Until when a queued task waits after a failed attempt."""
    docker_image: str
    command: list[str]
    env: dict[str, None]
    """The names that were submitted; the values are secret, and never shown."""
    cpu_required: float
    memory_required: Count
    """MiB."""
    gpu_required: Count
    priority: Count
    max_retries: Count
    timeout_seconds: float | None
    labels: dict[str, str]
    constraints: dict[str, list[str]]
    read_only: bool | None
    """With what the master's policy adds; null: the worker's policy decides. So for the next two."""
    user: str | None
    network: Literal["none", "bridge"] | None


class Attempt(_Outcome):
    """One run of a task on a worker."""

    attempt: Count
    worker_id: str
    status: AttemptStatus
    gpu_uuids: list[str]
    container_id: str | None
    assigned_at: Time
    preparing_at: Time | None
    running_at: Time | None
    finished_at: Time | None


class TaskEvent(ResponseModel):
    """One line of a task's story."""

    time: Time
    kind: str
    """submitted, assigned, preparing, progress, running, completed, failed, stopped, lost, requeued, cancel_requested
    or cancelled."""
    message: str
    attempt: int | None
    """Null: about the task as a whole."""


class TaskDetails(Task):
    """A task with all its attempts and its story, oldest first."""

    attempts: list[Attempt]
    events: list[TaskEvent]


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
