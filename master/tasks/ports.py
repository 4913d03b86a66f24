"""What the task service asks of others: a store that keeps what was promised, and streams to the workers.

Everything here is called on the gevent hub. "Waits" means cooperatively: the calling greenlet waits, the hub goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from fleetpulse.master.tasks.records import Attempt, Drain, LogChunk, Task, TaskEvent, TaskStatus
from fleetpulse.proto import fleetpulse_pb2 as pb

OnSaved = Callable[[], None]
"""Called on the hub when what was handed over is durable. Must not wait."""


class Idempotency(NamedTuple):
    """``key`` is the caller's; ``digest`` is of the request, so that one key cannot stand for two requests."""

    key: str
    digest: str


class Changes(NamedTuple):
    """Whole rows to be written in one transaction. Rows replace older ones with the same key, so writing the same
    changes twice is harmless; events are only added."""

    tasks: tuple[Task, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    events: tuple[TaskEvent, ...] = ()


class LiveTask(NamedTuple):
    """A task that has not ended, as it is found at the start; its environment is there, or is marked as lost."""

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
    """By task id, the newest attempt of those that have one."""

    next_cursor: str | None


class TaskDetails(NamedTuple):
    task: Task
    attempts: Sequence[Attempt]
    events: Sequence[TaskEvent]


class LogSlice(NamedTuple):
    """Bytes ``offset`` to ``offset + len(data)`` of an attempt's log; ``size`` is how many there are in all."""

    offset: int
    data: bytes
    size: int
    expired: bool = False
    """The log was there and has been pruned."""


class TaskStore(Protocol):
    """Keeps tasks. What was handed over is written in the order in which it was handed over.

    Only ``load_live`` gives the values of environments; elsewhere a mark stands for each.

    Everything that waits raises ``StoreUnavailable`` when the store does not answer, having changed nothing.
    """

    def submit(self, changes: Changes, idempotency: Idempotency | None) -> str:
        """Wait until one new task is durable, and return its id; or that of the task that has the same idempotency
        key and digest already. Raises ``IdempotencyConflict`` for the same key with another digest."""
        ...

    def save(self, changes: Changes, on_saved: OnSaved | None = None) -> None:
        """Hand over; does not wait, and is tried until it works."""
        ...

    def append_log(self, chunk: LogChunk, on_saved: OnSaved) -> None:
        """Hand over a piece of a log; does not wait. One that is there already changes nothing."""
        ...

    def load_live(self) -> Sequence[LiveTask]:
        """Wait for all that has not ended, oldest first."""
        ...

    def count_by_status(self) -> Mapping[TaskStatus, int]:
        """Wait for the number of tasks by status, every status named."""
        ...

    def find(self, query: TaskQuery) -> TaskPage:
        """Wait for a page. Raises ``InvalidCursor``."""
        ...

    def details(self, task_id: str) -> TaskDetails:
        """Wait for everything about one task. Raises ``UnknownTask``."""
        ...

    def worker_attempts(self, worker_id: str, limit: int) -> Sequence[tuple[Attempt, Task]]:
        """Wait for the attempts that were assigned to a worker and their tasks, newest first."""
        ...

    def assigned_to(self, task_id: str, attempt: int) -> str | None:
        """Wait for whom an attempt was given to; ``None`` when there is no such attempt."""
        ...

    def read_log(self, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
        """Wait for a part of a log. A negative offset counts from the end. Raises ``UnknownTask``."""
        ...

    def drains(self) -> Sequence[Drain]:
        """Wait for the workers that shall get no tasks."""
        ...

    def save_drain(self, worker_id: str, drain: Drain | None) -> None:
        """Wait until it is durable; ``None`` ends the drain."""
        ...

    def save_worker(self, worker_id: str, hostname: str, labels: Mapping[str, str], seen_at: float) -> None:
        """Note who a worker is; does not wait."""
        ...

    def health_error(self) -> str | None:
        """Why nothing can be written now, or ``None``."""
        ...


class WorkerLink(Protocol):
    """The way to a connected worker. Does not wait; what cannot be sent any more is lost, and said again later."""

    def send(self, message: pb.MasterMessage) -> None: ...

    def accuse(self, action: str, target: str, why: str) -> None:
        """Have it recorded that the worker did this to an attempt that was never its own, and was refused."""
        ...
