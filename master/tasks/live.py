"""The tasks that have not ended, in memory: by id, by worker, and those that wait for a place."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from enum import Enum, auto

from fleetpulse.master.tasks.placement.records import Waiting
from fleetpulse.master.tasks.records import Attempt, Demand, Task, TaskStatus


class Start(Enum):
    """Whether a live attempt's worker was told to run it."""

    UNSAVED = auto()
    """Not yet, for it is not durable."""

    DUE = auto()
    """Not yet, for the worker was not connected."""

    SENT = auto()
    """Told; whether it heard is for the worker to say."""


class LiveEntry:
    """One task and its live attempt. Mutable, and seen by the task service alone."""

    __slots__ = ("attempt", "log_durable_bytes", "log_taken_bytes", "start", "task")

    def __init__(self, task: Task, attempt: Attempt | None, log_bytes: int = 0) -> None:
        self.task = task
        self.attempt = attempt
        self.begin_log(log_bytes)
        # An attempt that is found at the start may have been told to its worker before.
        self.start = Start.UNSAVED if attempt is None else Start.SENT

    def begin_log(self, log_bytes: int = 0) -> None:
        """The attempt is new, or found at the start with so much of its log."""
        self.log_taken_bytes = log_bytes
        """Handed to the store."""

        self.log_durable_bytes = log_bytes


class LiveTasks:
    """Every change goes through ``put`` and ``drop``, which keep the indices right."""

    def __init__(self) -> None:
        self._entries: dict[str, LiveEntry] = {}
        self._by_worker: defaultdict[str, set[str]] = defaultdict(set)
        self._waiting: dict[str, Waiting] = {}
        self._paused: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, task_id: str) -> LiveEntry | None:
        return self._entries.get(task_id)

    def put(self, task: Task, attempt: Attempt | None, log_bytes: int = 0) -> LiveEntry:
        """The task stands like this now. ``attempt`` is the live one, if there is one."""
        entry = self._entries.get(task.task_id)
        if entry is None:
            entry = self._entries[task.task_id] = LiveEntry(task, attempt, log_bytes)
        else:
            self._leave_worker(entry)
            if attempt is not None and (entry.attempt is None or entry.attempt.attempt != attempt.attempt):
                entry.begin_log()
                entry.start = Start.UNSAVED
            entry.task, entry.attempt = task, attempt
        if attempt is not None:
            self._by_worker[attempt.worker_id].add(task.task_id)
        self._queue(task)
        return entry

    def drop(self, task_id: str) -> None:
        """The task has ended."""
        entry = self._entries.pop(task_id, None)
        if entry is not None:
            self._leave_worker(entry)
        self._waiting.pop(task_id, None)

    def on_worker(self, worker_id: str) -> Sequence[tuple[LiveEntry, Attempt]]:
        """The tasks whose live attempt is the worker's."""
        entries = [self._entries[task_id] for task_id in self._by_worker.get(worker_id, ())]
        return [(entry, entry.attempt) for entry in entries if entry.attempt is not None]

    def workers(self) -> Sequence[str]:
        """Those that have live attempts."""
        return list(self._by_worker)

    def waiting(self, wall: float) -> Sequence[Waiting]:
        """The queued tasks that need not pause any more at this time."""
        while self._paused and self._paused[0][0] <= wall:
            _, task_id = heapq.heappop(self._paused)
            entry = self._entries.get(task_id)
            if entry is not None and entry.task.status is TaskStatus.QUEUED:
                self._waiting[task_id] = waiting_for(entry.task)
        return tuple(self._waiting.values())

    def next_pause_ends(self) -> float | None:
        """When the next pause after a failed attempt is over, Unix seconds."""
        return self._paused[0][0] if self._paused else None

    def oldest_queued_at(self) -> float | None:
        """When the queued task that waits the longest was submitted; ``None`` without any."""
        return min((waiting.queued_at for waiting in self._waiting.values()), default=None)

    def _queue(self, task: Task) -> None:
        if task.status is not TaskStatus.QUEUED:
            self._waiting.pop(task.task_id, None)
        elif task.not_before is None:
            self._waiting[task.task_id] = waiting_for(task)
        else:
            heapq.heappush(self._paused, (task.not_before, task.task_id))

    def _leave_worker(self, entry: LiveEntry) -> None:
        if entry.attempt is not None:
            tasks = self._by_worker[entry.attempt.worker_id]
            tasks.discard(entry.task.task_id)
            if not tasks:
                del self._by_worker[entry.attempt.worker_id]


def demand_of(task: Task) -> Demand:
    """What an attempt of the task takes."""
    return Demand(task.spec.cpu_required, task.spec.memory_bytes, task.spec.gpu_required)


def waiting_for(task: Task) -> Waiting:
    """The task as the scheduler sees it."""
    return Waiting(task.task_id, demand_of(task), task.spec.constraints, task.spec.priority, task.created_at)
