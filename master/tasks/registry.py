"""The one place where tasks change: in memory at once, in the store in the same order, and only then for the world.

    change (pure) --apply--> live tasks, capacity, counts --store.save--> durable --> instruction sent, watchers told

Whatever follows from a change (an attempt sent to its worker, an acknowledgement) is done when the change is durable,
so a master that dies at any moment has promised nothing that it does not find again.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.fleet import FleetCapacity
from fleetpulse.master.tasks.live import LiveEntry, LiveTasks, Start, demand_of
from fleetpulse.master.tasks.ports import Changes, LiveTask, TaskStore, WorkerLink
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, LogChunk, Task, TaskStatus
from fleetpulse.master.tasks.transitions import Change, Instruction
from fleetpulse.master.tasks.watch import TaskWatchers
from fleetpulse.master.tasks.wire import AttemptKey, start_message, stop_message
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

Then = Callable[[], None]


class _PendingChange:
    """An attempt of a worker whose end is known but not durable yet."""

    __slots__ = ("log_bytes", "thens", "worker_id")

    def __init__(self, worker_id: str, log_bytes: int) -> None:
        self.worker_id = worker_id
        self.log_bytes = log_bytes
        self.thens: list[Then] = []


class TaskRegistry:
    """All methods are called on the hub, and none of them waits."""

    def __init__(self, store: TaskStore, telemetry: TelemetryManager, instruments: Instruments) -> None:
        self.live = LiveTasks()
        self.fleet = FleetCapacity()
        self.watches = TaskWatchers()
        self.instruments = instruments.tasks
        self._store = store
        self._telemetry = telemetry
        self._links: dict[str, WorkerLink] = {}
        self._settling: dict[AttemptKey, _PendingChange] = {}
        self._counts = dict.fromkeys(TaskStatus, 0)
        self.on_room: Then = lambda: None
        """Called when a task might find a place that it did not find before."""

        for status in TaskStatus:
            self.instruments.tasks.labels(status).set_function(partial(self._counts.__getitem__, status))

    def load(self, found: LiveTask) -> None:
        """A task that had not ended when the master started."""
        self.live.put(found.task, found.attempt, found.log_received_bytes)
        if found.attempt is not None:
            self.fleet.allocate(
                found.attempt.worker_id, found.attempt.key, demand_of(found.task), found.attempt.gpu_uuids
            )

    def load_counts(self, counts: Mapping[TaskStatus, int]) -> None:
        """How many tasks of each status the store holds."""
        self._counts.update(counts)

    def accept(self, task: Task) -> None:
        """A new task, which is durable already."""
        self._counts[task.status] += 1
        self.live.put(task, None)
        self.on_room()

    def apply(self, entry: LiveEntry, change: Change, then: Then | None = None) -> None:
        """Make the change; ``then`` is called when it is durable, after what the change itself asks for."""
        before, task, attempt = entry.task, change.task, change.attempt
        ends = attempt is not None and attempt.status.is_terminal
        self._measure(before, task, entry.attempt, attempt)
        self._counts[before.status] -= 1
        self._counts[task.status] += 1
        if task.status.is_terminal:
            self.live.drop(task.task_id)
        else:
            self.live.put(task, None if ends else attempt)
        if attempt is not None:
            self._account(task, attempt, is_new=attempt.attempt != before.attempt, ends=ends)
        if attempt is not None and ends and attempt.status is not AttemptStatus.LOST:
            self._settling[attempt.key] = _PendingChange(attempt.worker_id, entry.log_taken_bytes)
        self._store.save(
            Changes((task,), (attempt,) if attempt is not None else (), tuple(change.events)),
            lambda: self._saved(entry, change, then),
        )

    def after_all_before(self, then: Then) -> None:
        """Call when everything that was applied until now is durable."""
        self._store.save(Changes(), then)

    def settling_log_bytes(self, worker_id: str, key: AttemptKey) -> int | None:
        """The size of the log of the worker's attempt whose end is known but not durable yet; ``None`` for others."""
        settling = self._settling.get(key)
        return None if settling is None or settling.worker_id != worker_id else settling.log_bytes

    def when_settled(self, worker_id: str, key: AttemptKey, then: Then) -> bool:
        """Call when the end of the worker's attempt is durable; whether it is known and about to be."""
        settling = self._settling.get(key)
        if settling is None or settling.worker_id != worker_id:
            return False
        settling.thens.append(then)
        return True

    def append_log(self, entry: LiveEntry, chunk: LogChunk, then: Then) -> None:
        """Keep a piece of the live attempt's log that follows what was taken before."""
        end = entry.log_taken_bytes = chunk.offset + len(chunk.data)

        def saved() -> None:
            if entry.task.attempt == chunk.attempt:
                entry.log_durable_bytes = end
            self.watches.notify(chunk.task_id)
            then()

        self._store.append_log(chunk, saved)

    # Workers

    def connect(self, worker_id: str, link: WorkerLink) -> None:
        """Messages for the worker go this way from now on."""
        self._links[worker_id] = link
        self.fleet.set_connected(worker_id, is_connected=True)
        self.show_allocation(worker_id)
        self.on_room()

    def disconnect(self, worker_id: str, link: WorkerLink) -> None:
        """The link is of no use any more."""
        if self._links.get(worker_id) is link:
            del self._links[worker_id]
            self.fleet.set_connected(worker_id, is_connected=False)
            self.show_allocation(worker_id)

    def send(self, worker_id: str, message: pb.MasterMessage) -> bool:
        """Whether the worker is connected, so that the message is on its way."""
        link = self._links.get(worker_id)
        if link is not None:
            link.send(message)
        return link is not None

    def send_start_if_due(self, entry: LiveEntry) -> None:
        """Have the worker run the entry's attempt, if it is durable and the worker was not told yet."""
        attempt = entry.attempt
        if attempt is not None and entry.start is Start.DUE:
            sent = self.send(attempt.worker_id, start_message(entry.task, attempt))
            entry.start = Start.SENT if sent else Start.DUE

    def show_allocation(self, worker_id: str) -> None:
        """Let telemetry show what the worker's tasks take of it."""
        self._telemetry.set_allocation(worker_id, self.fleet.allocation(worker_id))

    def _account(self, task: Task, attempt: Attempt, *, is_new: bool, ends: bool) -> None:
        if is_new:
            self.fleet.allocate(attempt.worker_id, attempt.key, demand_of(task), attempt.gpu_uuids)
        elif ends:
            self.fleet.release(attempt.worker_id, attempt.key)
            self.on_room()
        else:
            return
        self.show_allocation(attempt.worker_id)

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

    def _saved(self, entry: LiveEntry, change: Change, then: Then | None) -> None:
        attempt = change.attempt
        if change.instruction is Instruction.START and attempt is not None:
            # What was decided meanwhile about the attempt comes after this, in its own turn.
            if entry.attempt is not None and entry.attempt.attempt == attempt.attempt:
                entry.start = Start.DUE
                self.send_start_if_due(entry)
        elif change.instruction is Instruction.STOP and attempt is not None:
            self.send(attempt.worker_id, stop_message(attempt, "the task was cancelled"))
        self.watches.notify(change.task.task_id)
        if then is not None:
            then()
        if attempt is not None and attempt.status.is_terminal:
            settling = self._settling.pop(attempt.key, None)
            for also_then in settling.thens if settling is not None else ():
                also_then()
