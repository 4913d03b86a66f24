"""The one place where tasks change: in memory at once, in the store in the same order, and only then for the world.

    change (pure) --apply--> live tasks, capacity, counts --store.save--> durable --> instruction sent, watchers told

Whatever follows from a change (an attempt sent to its worker, an acknowledgement) is done when the change is durable,
so a master that dies at any moment has promised nothing that it does not find again.
"""

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from gevent.event import Event

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.capacity import FleetCapacity, StartFailure
from fleetpulse.master.tasks.messages import WorkerLink, start_message, stop_message
from fleetpulse.master.tasks.placement import QueuedTask, ResourceAmounts, millicores
from fleetpulse.master.tasks.quotas import QueueQuotas
from fleetpulse.master.tasks.records import (
    Attempt,
    AttemptKey,
    AttemptStatus,
    Changes,
    LiveTask,
    LogChunk,
    OnSaved,
    Task,
    TaskStatus,
    TaskStore,
)
from fleetpulse.master.tasks.transitions import Change, Instruction
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb


class Start(Enum):
    """Whether a live attempt was sent to its worker: not yet durable, not connected, sent."""

    UNSAVED = auto()
    DUE = auto()
    SENT = auto()


class LiveEntry:
    """One task and its live attempt. Mutable, and seen by the task service alone."""

    __slots__ = ("attempt", "failed_on", "log_durable_bytes", "log_taken_bytes", "start", "task")

    def __init__(self, task: Task, attempt: Attempt | None, log_bytes: int = 0) -> None:
        self.task = task
        self.attempt = attempt
        self.failed_on: dict[str, StartFailure] = {}
        """By worker, why it could not be started there since it last ran or used up a retry."""

        self.log_taken_bytes = self.log_durable_bytes = log_bytes
        # An attempt that is found at the start may have been sent to its worker before.
        self.start = Start.UNSAVED if attempt is None else Start.SENT


class LiveTasks:
    """The tasks that have not ended: by id, by worker, and the queued ones. ``put`` and ``drop`` keep the indices."""

    def __init__(self) -> None:
        self._entries: dict[str, LiveEntry] = {}
        self._by_worker: defaultdict[str, set[str]] = defaultdict(set)
        self._queue: dict[str, QueuedTask] = {}
        self._backing_off: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, task_id: str) -> LiveEntry | None:
        return self._entries.get(task_id)

    def put(self, task: Task, attempt: Attempt | None, log_bytes: int = 0) -> LiveEntry:
        """Stores the task's present state. ``attempt`` is the live one, if there is one."""
        entry = self._entries.get(task.task_id)
        if entry is None:
            entry = self._entries[task.task_id] = LiveEntry(task, attempt, log_bytes)
        else:
            self._leave_worker(entry)
            if attempt is not None and (entry.attempt is None or entry.attempt.attempt != attempt.attempt):
                entry.log_taken_bytes = entry.log_durable_bytes = 0
                entry.start = Start.UNSAVED
            entry.task, entry.attempt = task, attempt
        if attempt is not None:
            self._by_worker[attempt.worker_id].add(task.task_id)
        if task.status is not TaskStatus.QUEUED:
            self._queue.pop(task.task_id, None)
        elif task.not_before is None:
            self._queue[task.task_id] = queued(task, entry.failed_on)
        else:
            heapq.heappush(self._backing_off, (task.not_before, task.task_id))
        return entry

    def drop(self, task_id: str) -> None:
        """The task has ended."""
        entry = self._entries.pop(task_id, None)
        if entry is not None:
            self._leave_worker(entry)
        self._queue.pop(task_id, None)

    def on_worker(self, worker_id: str) -> Sequence[tuple[LiveEntry, Attempt]]:
        """Returns the tasks whose live attempt is the worker's."""
        entries = [self._entries[task_id] for task_id in self._by_worker.get(worker_id, ())]
        return [(entry, entry.attempt) for entry in entries if entry.attempt is not None]

    def is_assigned(self, worker_id: str, task_id: str, attempt: int) -> bool:
        """Whether the task's live attempt is this one, and the worker's."""
        entry = self._entries.get(task_id)
        live = None if entry is None else entry.attempt
        return live is not None and (live.worker_id, live.attempt) == (worker_id, attempt)

    def workers(self) -> Sequence[str]:
        """Returns the workers that have live attempts."""
        return list(self._by_worker)

    def queue(self, wall: float) -> Sequence[QueuedTask]:
        """Returns the queued tasks that may be placed at this time."""
        while self._backing_off and self._backing_off[0][0] <= wall:
            _, task_id = heapq.heappop(self._backing_off)
            entry = self._entries.get(task_id)
            if entry is not None and entry.task.status is TaskStatus.QUEUED:
                self._queue[task_id] = queued(entry.task, entry.failed_on)
        return tuple(self._queue.values())

    def next_backoff_end(self) -> float | None:
        """Returns when the next pause after a failed attempt is over, Unix seconds."""
        return self._backing_off[0][0] if self._backing_off else None

    def oldest_queued_at(self) -> float | None:
        """Returns when the oldest queued task was submitted; ``None`` without any."""
        return min((task.queued_at for task in self._queue.values()), default=None)

    def _leave_worker(self, entry: LiveEntry) -> None:
        if entry.attempt is not None:
            tasks = self._by_worker[entry.attempt.worker_id]
            tasks.discard(entry.task.task_id)
            if not tasks:
                del self._by_worker[entry.attempt.worker_id]


def demand_of(task: Task) -> ResourceAmounts:
    """Returns what an attempt of the task takes."""
    request = task.request
    return ResourceAmounts(millicores(request.cpu_required), request.memory_bytes, request.gpu_required)


def queued(task: Task, avoided: Iterable[str] = ()) -> QueuedTask:
    """Returns the task as a placement policy sees it."""
    request = task.request
    return QueuedTask(
        task.task_id, demand_of(task), request.constraints, request.priority, task.created_at, frozenset(avoided)
    )


class TaskWatch:
    """One reader's wait for updates of a task or its log."""

    def __init__(self) -> None:
        self._updated = Event()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether something has changed since the last wait, or does so before the timeout."""
        is_updated = bool(self._updated.wait(timeout_seconds))
        self._updated.clear()
        return is_updated

    def notify(self) -> None:
        self._updated.set()


class TaskWatchers:
    """The open watches by task id."""

    def __init__(self) -> None:
        self._by_task: defaultdict[str, set[TaskWatch]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._by_task.values()))

    @contextmanager
    def watch(self, task_id: str) -> Iterator[TaskWatch]:
        """A watch that is open inside the context."""
        watch = TaskWatch()
        self._by_task[task_id].add(watch)
        try:
            yield watch
        finally:
            self._by_task[task_id].discard(watch)
            if not self._by_task[task_id]:
                del self._by_task[task_id]

    def notify(self, task_id: str) -> None:
        """The task or its log has changed, durably."""
        for watch in self._by_task.get(task_id, ()):
            watch.notify()


class PendingEnd(NamedTuple):
    """The end of a worker's attempt that is known but not durable yet."""

    log_bytes: int
    callbacks: list[OnSaved]
    """Called when it is durable."""


class TaskRegistry:
    """All methods are called on the hub, and none of them waits."""

    def __init__(
        self,
        store: TaskStore,
        telemetry: TelemetryManager,
        instruments: Instruments,
        on_capacity_freed: Callable[[], None] = lambda: None,
        quotas: QueueQuotas | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_capacity_freed`` is called when a task might be placed that could not be before."""
        self.live = LiveTasks()
        self.quotas = quotas = QueueQuotas() if quotas is None else quotas
        self.capacity = FleetCapacity(monotonic)
        self.watchers = TaskWatchers()
        self.instruments = instruments.tasks
        self.on_capacity_freed = on_capacity_freed
        self._store = store
        self._telemetry = telemetry
        self._links: dict[str, WorkerLink] = {}
        self._pending_ends: dict[tuple[str, AttemptKey], PendingEnd] = {}
        self._counts = dict.fromkeys(TaskStatus, 0)
        self.instruments.queued_bytes.set_function(lambda: quotas.usage.size_bytes)
        for status in TaskStatus:
            self.instruments.tasks.labels(status).set_function(partial(self._counts.__getitem__, status))

    def load(self, found: Sequence[LiveTask], counts: Mapping[TaskStatus, int]) -> None:
        """Takes in the tasks that had not ended when the master started, and how many of each status there are."""
        for task, attempt, log_bytes in found:
            self.live.put(task, attempt, log_bytes)
            if task.status is TaskStatus.QUEUED:
                self.quotas.add(task)
            if attempt is not None:
                self.capacity.allocate(attempt.worker_id, attempt.key, demand_of(task), attempt.gpu_uuids)
        self._counts.update(counts)

    def accept(self, task: Task) -> None:
        """Takes in a new task, which is durable already, and counted by ``quotas``."""
        self._counts[task.status] += 1
        self.live.put(task, None)
        self.on_capacity_freed()

    def apply(self, entry: LiveEntry, change: Change, on_saved: OnSaved | None = None) -> None:
        """Makes the change. ``on_saved`` is called when it is durable, after the change's own instruction."""
        before, task, attempt = entry.task, change.task, change.attempt
        ends = attempt is not None and attempt.status.is_terminal
        self._measure(before, task, entry.attempt, attempt)
        self._counts[before.status] -= 1
        self._counts[task.status] += 1
        self._count_queued(before, task)
        if task.status.is_terminal:
            self.live.drop(task.task_id)
        else:
            self.live.put(task, None if ends else attempt)
        if attempt is not None and attempt.attempt != before.attempt:
            self.capacity.allocate(attempt.worker_id, attempt.key, demand_of(task), attempt.gpu_uuids)
            self.publish_allocation(attempt.worker_id)
        elif attempt is not None and ends:
            self.capacity.release(attempt.worker_id, attempt.key)
            self.on_capacity_freed()
            self.publish_allocation(attempt.worker_id)
        if attempt is not None and ends and attempt.status is not AttemptStatus.LOST:
            self._pending_ends[attempt.worker_id, attempt.key] = PendingEnd(entry.log_taken_bytes, [])
        self._store.save(
            Changes((task,), (attempt,) if attempt is not None else (), tuple(change.events)),
            lambda: self._saved(entry, change, on_saved),
        )

    def after_pending_saves(self, on_saved: OnSaved) -> None:
        """Calls back when everything that was applied until now is durable."""
        self._store.save(Changes(), on_saved)

    def pending_end(self, worker_id: str, key: AttemptKey) -> PendingEnd | None:
        """Returns the end of the worker's attempt, unless it is unknown, or durable already."""
        return self._pending_ends.get((worker_id, key))

    def append_log(self, entry: LiveEntry, chunk: LogChunk, on_saved: OnSaved) -> None:
        """Keeps a piece of the live attempt's log that follows what was taken before."""
        end = entry.log_taken_bytes = chunk.offset + len(chunk.data)

        def saved() -> None:
            if entry.task.attempt == chunk.attempt:
                entry.log_durable_bytes = end
            self.watchers.notify(chunk.task_id)
            on_saved()

        self._store.append_log(chunk, saved)

    # Workers

    def connect(self, worker_id: str, link: WorkerLink) -> None:
        """Messages for the worker go over this link from now on."""
        self._links[worker_id] = link
        self.capacity.set_connected(worker_id, is_connected=True)
        self.publish_allocation(worker_id)
        self.on_capacity_freed()

    def disconnect(self, worker_id: str, link: WorkerLink) -> None:
        """The link is closed."""
        if self._links.get(worker_id) is link:
            del self._links[worker_id]
            self.capacity.set_connected(worker_id, is_connected=False)
            self.publish_allocation(worker_id)

    def send(self, worker_id: str, message: pb.MasterMessage) -> bool:
        """Returns whether the worker is connected, so that the message is on its way."""
        link = self._links.get(worker_id)
        if link is not None:
            link.send(message)
        return link is not None

    def send_start_if_due(self, entry: LiveEntry) -> None:
        """Sends the entry's attempt to its worker, if it is durable and was not sent yet."""
        attempt = entry.attempt
        if attempt is not None and entry.start is Start.DUE:
            sent = self.send(attempt.worker_id, start_message(entry.task, attempt))
            entry.start = Start.SENT if sent else Start.DUE

    def publish_allocation(self, worker_id: str) -> None:
        """Has telemetry show what the worker's tasks take of it."""
        self._telemetry.set_allocation(worker_id, self.capacity.allocation(worker_id))

    def _count_queued(self, before: Task, task: Task) -> None:
        was_queued, is_queued = (one.status is TaskStatus.QUEUED for one in (before, task))
        if was_queued and not is_queued:
            self.quotas.release(before.submitter, before.request)
        elif is_queued and not was_queued:
            self.quotas.add(task)

    def _measure(self, before: Task, task: Task, old: Attempt | None, attempt: Attempt | None) -> None:
        instruments = self.instruments
        if attempt is not None and attempt.status.is_terminal:
            instruments.attempts_ended.labels(attempt.status, attempt.outcome.reason or "").inc()
            if attempt.running_at is not None and attempt.finished_at is not None:
                instruments.run_time.observe(max(attempt.finished_at - attempt.running_at, 0.0))
        if old is None and attempt is not None and before.status is TaskStatus.QUEUED:
            queued_at = before.not_before or before.created_at
            instruments.queue_wait.observe(max(attempt.assigned_at - queued_at, 0.0))
        if task.status.is_terminal:
            instruments.finished.labels(task.status).inc()

    def _saved(self, entry: LiveEntry, change: Change, on_saved: OnSaved | None) -> None:
        attempt = change.attempt
        if change.instruction is Instruction.START and attempt is not None:
            # Later decisions about the attempt follow in their own turn.
            if entry.attempt is not None and entry.attempt.attempt == attempt.attempt:
                entry.start = Start.DUE
                self.send_start_if_due(entry)
        elif change.instruction is Instruction.STOP and attempt is not None:
            self.send(attempt.worker_id, stop_message(attempt, "the task was cancelled"))
        self.watchers.notify(change.task.task_id)
        if on_saved is not None:
            on_saved()
        if attempt is not None and attempt.status.is_terminal:
            pending = self._pending_ends.pop((attempt.worker_id, attempt.key), None)
            for callback in pending.callbacks if pending else ():
                callback()
