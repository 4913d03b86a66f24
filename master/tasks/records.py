"""What the master knows of a task and its attempts, as immutable snapshots. Times are Unix seconds by its wall clock.

A task is what somebody asked for; an attempt is one run of it on one worker. An attempt number is never used twice, so
``(task_id, attempt)`` fences off everything that a worker says about the past.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class TaskStatus(StrEnum):
    """The last three are terminal: a task that has one keeps it."""

    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_TASKS


class AttemptStatus(StrEnum):
    """``ASSIGNED``: decided and sent, not yet heard of. ``LOST``: its worker is gone, or does not have it."""

    ASSIGNED = "assigned"
    PREPARING = "preparing"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_ATTEMPTS


_TERMINAL_TASKS = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})
_TERMINAL_ATTEMPTS = frozenset(
    {AttemptStatus.COMPLETED, AttemptStatus.FAILED, AttemptStatus.STOPPED, AttemptStatus.LOST}
)


class TaskSpec(NamedTuple):
    """What was asked for, checked. Memory is in MiB because REST speaks of MiB; everything else here is in bytes."""

    docker_image: str
    name: str = ""
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = MappingProxyType({})
    cpu_required: float = 1.0
    memory_required: int = 512
    gpu_required: int = 0
    priority: int = 0
    max_retries: int = 0
    timeout_seconds: float | None = None
    labels: Mapping[str, str] = MappingProxyType({})
    """The submitter's own; they decide nothing."""

    constraints: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """By label of a worker, the values that it may have; ``worker_id`` counts as a label."""

    read_only: bool | None = None
    """The container's root filesystem; ``None``, here and below: as the worker's rules for tasks have it."""

    user: str | None = None
    network: str | None = None
    """``none`` or ``bridge``."""

    env_is_lost: bool = False
    """The values of ``env`` cannot be read any more, so no attempt may begin."""

    @property
    def memory_bytes(self) -> int:
        return self.memory_required * 1024 * 1024

    def __repr__(self) -> str:
        """Without the values of ``env``: secrets travel there, and a traceback or a log is no place for them."""
        return f"TaskSpec{tuple(self._replace(env=dict.fromkeys(self.env, '***')))!r}"


class Outcome(NamedTuple):
    """How a task or an attempt ended. ``None`` where there is nothing to tell, as the exit code of a failed pull."""

    exit_code: int | None = None
    oom_killed: bool | None = None
    reason: str | None = None
    """One word for programs: one of ``proto.rules.ATTEMPT_REASONS``, ``worker_lost``, ``secrets_lost`` or
    ``cancelled``."""

    error: str | None = None
    """For people: what happened and what to do about it."""


class Task(NamedTuple):
    """``status`` says where it stands; the times say when it came to each step for the last time."""

    task_id: str
    spec: TaskSpec
    status: TaskStatus
    created_at: float
    attempt: int = 0
    """The number of the newest attempt; 0 before the first."""

    retries_used: int = 0
    not_before: float | None = None
    """A queued task waits until then: the pause after a failed attempt."""

    cancel_requested_at: float | None = None
    pending_at: float | None = None
    running_at: float | None = None
    finished_at: float | None = None
    outcome: Outcome = Outcome()
    """Of the last attempt that ended."""


class Attempt(NamedTuple):
    """One run of a task on one worker."""

    task_id: str
    attempt: int
    worker_id: str
    status: AttemptStatus
    assigned_at: float
    gpu_uuids: tuple[str, ...] = ()
    preparing_at: float | None = None
    running_at: float | None = None
    finished_at: float | None = None
    container_id: str | None = None
    outcome: Outcome = Outcome()

    @property
    def key(self) -> tuple[str, int]:
        """Task id and number, which are no other attempt's."""
        return self.task_id, self.attempt


class TaskEvent(NamedTuple):
    """One line of a task's story."""

    task_id: str
    time: float
    kind: str
    """One word: submitted, assigned, preparing, progress, running, completed, failed, stopped, lost, requeued,
    cancel_requested, cancelled."""

    message: str = ""
    attempt: int = 0
    """0: the event is about the task as a whole."""


class LogChunk(NamedTuple):
    """A piece of an attempt's output; ``offset`` is of its first byte."""

    task_id: str
    attempt: int
    offset: int
    data: bytes


class Drain(NamedTuple):
    """A worker that shall get no new tasks."""

    worker_id: str
    reason: str
    since: float


class Demand(NamedTuple):
    """What one attempt takes of a worker for as long as it is live."""

    cpu_cores: float
    memory_bytes: int
    gpus: int
