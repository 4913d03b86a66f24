"""What the REST door asks of the task service. Everything is called on the hub; "waits" means cooperatively."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from fleetpulse.master.tasks.ports import Idempotency, LogSlice, TaskDetails, TaskPage, TaskQuery
from fleetpulse.master.tasks.records import Attempt, Task, TaskSpec


class TaskWatch(Protocol):
    """Hears of one task."""

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until the task or its log has changed, durably, since the last wait; whether it has."""
        ...


class TaskService(Protocol):
    """``master.tasks.service`` as REST sees it. Every method may raise ``StoreUnavailable``."""

    def submit(self, spec: TaskSpec, idempotency: Idempotency | None = None) -> tuple[Task, bool]:
        """Wait until the task is durable; whether it is new. Raises ``TaskRefused``,
        ``IdempotencyConflict``, ``MasterStopping``."""
        ...

    def cancel(self, task_id: str) -> Task:
        """Wait until the wish is durable. Raises ``UnknownTask``, ``TaskAlreadyFinished``."""
        ...

    def find(self, query: TaskQuery) -> TaskPage:
        """Wait for a page. Raises ``InvalidCursor``."""
        ...

    def details(self, task_id: str) -> TaskDetails:
        """Wait for all that is stored of a task. Raises ``UnknownTask``."""
        ...

    def queue_reason(self, task: Task) -> str | None:
        """Why it is still queued; ``None`` for any other status."""
        ...

    def worker_attempts(self, worker_id: str, limit: int = 100) -> Sequence[tuple[Attempt, Task]]:
        """Wait for what was assigned to a worker, newest first. Raises ``UnknownWorker``."""
        ...

    def read_log(self, task_id: str, attempt: int | None, offset: int, limit: int) -> tuple[int, LogSlice]:
        """Wait for a part of a log, and say of which attempt; ``None`` is the newest, and 0 when there is none yet.

        A negative offset counts from the end. Raises ``UnknownTask``, ``LogExpired``.
        """
        ...

    def watch(self, task_id: str) -> AbstractContextManager[TaskWatch]:
        """Hear of the task while the context is open."""
        ...

    def drain(self, worker_id: str, reason: str) -> None:
        """Wait until it is durable that the worker gets no new tasks. Raises ``UnknownWorker``."""
        ...

    def undrain(self, worker_id: str) -> None:
        """Wait until it is durable that the worker may get tasks again. Raises ``UnknownWorker``."""
        ...
