"""What the master knows of tasks and attempts, as immutable snapshots, and the port of the store that keeps them.

A task is what somebody asked for; an attempt is one run of it on one worker. An attempt number is never used twice, so
``(task_id, attempt)`` tells a late report from a current one. Times are Unix seconds by the master's wall clock.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fleetpulse.master.tasks.request import TaskRequest

OnSaved = Callable[[], None]
"""Called on the hub when what was handed over is durable. Must not wait."""

AttemptKey = tuple[str, int]
"""Task id and attempt number."""


class TaskStatus(StrEnum):
    """The last three are terminal: a task never leaves them."""

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
    """``ASSIGNED``: sent to its worker, which has not reported yet. ``LOST``: its worker is gone, or lacks it."""

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


_TERMINAL_TASKS = {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}
_TERMINAL_ATTEMPTS = {AttemptStatus.COMPLETED, AttemptStatus.FAILED, AttemptStatus.STOPPED, AttemptStatus.LOST}


class Outcome(NamedTuple):
    """How a task or an attempt ended. ``None`` where nothing is known, as the exit code of a failed pull."""

    exit_code: int | None = None
    oom_killed: bool | None = None
    reason: str | None = None
    """For programs: one of ``proto.rules.ATTEMPT_REASONS``, ``worker_lost``, ``secrets_lost`` or ``cancelled``."""
    error: str | None = None
    """For people: what happened and what to do about it."""


class Task(NamedTuple):
    """The times say when the task last came to each status."""

    task_id: str
    request: TaskRequest
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
    submitter: str | None = None
    """The name of the token that it was submitted with, if it is known."""
    outcome: Outcome = Outcome()
    """Of the last attempt that ended."""
    env_is_lost: bool = False
    """The values of the request's ``env`` cannot be decrypted any more, so no attempt may begin."""


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
    def key(self) -> AttemptKey:
        return self.task_id, self.attempt


class TaskEvent(NamedTuple):
    """One line of a task's history."""

    task_id: str
    time: float
    kind: str
    """One word: submitted, assigned, preparing, progress, running, completed, failed, stopped, lost, requeued,
    cancel_requested, cancelled."""
    message: str = ""
    attempt: int = 0
    """0: the event is about the task as a whole."""


class LogChunk(NamedTuple):
    """A piece of an attempt's output; ``offset`` is that of its first byte."""

    task_id: str
    attempt: int
    offset: int
    data: bytes


class Drain(NamedTuple):
    """A worker that gets no new tasks."""

    worker_id: str
    reason: str
    since: float


class Idempotency(NamedTuple):
    """``key`` is the caller's; ``digest`` is of the request, so that one key cannot stand for two requests."""

    key: str
    digest: str


class Changes(NamedTuple):
    """Rows to be written in one transaction. A task or an attempt replaces its older row, so writing the same changes
    twice is harmless; events are only added."""

    tasks: tuple[Task, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    events: tuple[TaskEvent, ...] = ()


class LiveTask(NamedTuple):
    """A task that has not ended, as the store has it at the start, with the values of its environment."""

    task: Task
    attempt: Attempt | None
    log_received_bytes: int


class TaskQuery(NamedTuple):
    """Which tasks, newest first. ``cursor`` is ``TaskPage.next_cursor`` of the page before; opaque to the caller."""

    statuses: frozenset[TaskStatus] = frozenset()
    worker_id: str | None = None
    name_prefix: str | None = None
    limit: int = 100
    cursor: str | None = None


class TaskPage(NamedTuple):
    tasks: Sequence[Task]
    attempts: Mapping[str, Attempt]
    """The newest attempt by task id."""
    next_cursor: str | None
    truncated: Mapping[str, Sequence[str]] = MappingProxyType({})
    """By task id, the fields of its request that are too large for a page, and empty here; only tasks that have any."""


class TaskDetails(NamedTuple):
    task: Task
    attempts: Sequence[Attempt]
    events: Sequence[TaskEvent]


class LogSlice(NamedTuple):
    """Bytes ``offset`` to ``offset + len(data)`` of an attempt's log of ``size`` bytes."""

    offset: int
    data: bytes
    size: int
    expired: bool = False
    """The log has been pruned."""


class TaskStore(Protocol):
    """Keeps tasks, on the hub. Writes in the order in which changes are handed over.

    "Waits" means cooperatively. What waits raises ``StoreUnavailable`` when the store does not answer, and has changed
    nothing then. Only ``load_live`` returns the values of environments; elsewhere a mark stands for each.
    """

    def submit(self, changes: Changes, idempotency: Idempotency | None) -> str:
        """Waits until one new task is durable. Returns its id, or that of the task that has the same idempotency key
        and digest already. Raises ``IdempotencyConflict`` for the same key with another digest."""

    def submitted_with(self, idempotency: Idempotency) -> str | None:
        """Waits for the id of the task that has this key and digest, if there is one. Raises ``IdempotencyConflict``
        as ``submit``."""

    def save(self, changes: Changes, on_saved: OnSaved | None = None) -> None:
        """Hands changes over without waiting; the store retries until they are written."""

    def append_log(self, chunk: LogChunk, on_saved: OnSaved) -> None:
        """Hands a piece of a log over without waiting. One that is there already changes nothing."""

    def load_live(self) -> Sequence[LiveTask]:
        """Waits for every task that has not ended, oldest first."""

    def count_by_status(self) -> Mapping[TaskStatus, int]:
        """Waits for the number of tasks of every status."""

    def find(self, query: TaskQuery) -> TaskPage:
        """Waits for a page. Raises ``InvalidCursor``."""

    def details(self, task_id: str) -> TaskDetails:
        """Waits for everything about one task. Raises ``UnknownTask``."""

    def worker_attempts(self, worker_id: str, limit: int) -> Sequence[tuple[Attempt, Task]]:
        """Waits for the attempts that were assigned to a worker and their tasks, newest first; without what is
        ``truncated`` in a page of tasks."""

    def assigned_to(self, task_id: str, attempt: int) -> str | None:
        """Waits for the worker that an attempt was assigned to; ``None``: there is no such attempt."""

    def read_log(self, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
        """Waits for a part of a log. A negative offset counts from the end. Raises ``UnknownTask``."""

    def drains(self) -> Sequence[Drain]:
        """Waits for the workers that are drained."""

    def save_drain(self, worker_id: str, drain: Drain | None) -> None:
        """Waits until it is durable; ``None`` ends the drain."""

    def save_worker(self, worker_id: str, hostname: str, labels: Mapping[str, str], seen_at: float) -> None:
        """Notes who a worker is, without waiting."""

    def health_error(self) -> str | None:
        """Returns why nothing can be written now, or ``None``."""
