"""The TaskService: what REST asks for. Submit, cancel, look, follow, drain.

Reads come from the store, which holds what is durable; only why a task waits is known in memory alone.
"""

import logging
import secrets
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import LogExpired, MasterStopping, UnknownWorker
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.absence import LostWorkerTracker
from fleetpulse.master.tasks.admission import allowed
from fleetpulse.master.tasks.claims import ForeignReports
from fleetpulse.master.tasks.mass_loss import EvictionLimiter
from fleetpulse.master.tasks.placement.records import Policy
from fleetpulse.master.tasks.placer import Placer
from fleetpulse.master.tasks.ports import (
    Changes,
    Idempotency,
    LiveTask,
    LogSlice,
    TaskDetails,
    TaskPage,
    TaskQuery,
    TaskStore,
)
from fleetpulse.master.tasks.reasons import QueueReasons
from fleetpulse.master.tasks.records import Attempt, Drain, Task, TaskSpec, TaskStatus
from fleetpulse.master.tasks.registry import TaskRegistry
from fleetpulse.master.tasks.scheduler import plan
from fleetpulse.master.tasks.transitions import cancelled, secrets_lost, submitted
from fleetpulse.master.tasks.watch import TaskWatch
from fleetpulse.master.tasks.workers import AttemptReportHandler
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import TaskPolicy

_LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
_ID_BYTES = 8


def new_task_id() -> str:
    """``task-`` and 16 random hexadecimal digits."""
    return f"task-{secrets.token_hex(_ID_BYTES)}"


class TaskService:
    """Built, started and stopped on the hub. "Waits" means cooperatively, for the store.

    ``workers`` is for the workers' streams, and observes telemetry.
    """

    def __init__(
        self,
        store: TaskStore,
        telemetry: TelemetryManager,
        instruments: Instruments,
        clock: Clock = Clock(),  # noqa: B008 - an immutable pair of functions
        new_id: Callable[[], str] = new_task_id,
        policy: Policy = plan,
        task_policy: TaskPolicy = TaskPolicy(),  # noqa: B008 - immutable
    ) -> None:
        terms: LeaseConfig = telemetry.lease_config
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._new_id = new_id
        self._task_policy = task_policy
        self._ledger = TaskRegistry(store, telemetry, instruments)
        self._guard = EvictionLimiter()
        self._claims = ForeignReports(store, instruments.tasks)
        self.workers = AttemptReportHandler(
            self._ledger, store, LostWorkerTracker(self._guard), self._claims.judge, terms, clock
        )
        self._placer = Placer(self._ledger, clock, policy)
        self._checker: gevent.Greenlet[..., None] | None = None
        self._stopping = Event()
        self._reasons = QueueReasons(self._ledger.fleet, self._placer)
        instruments.tasks.oldest_queued.set_function(self._oldest_queued_seconds)

    # Lifecycle

    def start(self) -> None:
        """Find what had not ended, and begin to place tasks. Waits; to be called before a worker can connect."""
        for drain in self._store.drains():
            self._ledger.fleet.set_drain(drain.worker_id, drain)
        live = self._store.load_live()
        for found in live:
            self._ledger.load(found)
        self._ledger.load_counts(self._store.count_by_status())
        self._fail_without_secrets(live)
        now = self._clock.monotonic()
        for worker_id in self._ledger.live.workers():
            self._guard.worker_back(worker_id, now)
            self.workers.expect(worker_id)
        if live:
            _LOGGER.info("%d tasks had not ended when the master started", len(live))
        self._placer.start()
        self._claims.start()
        self._checker = gevent.spawn(self._watch_absences)
        self._checker.name = "task-absences"
        self._ledger.on_room()

    def stop(self) -> None:
        """Place no more. What is live stays so, and is found again."""
        self._stopping.set()
        self._placer.stop()
        self._claims.stop()
        if self._checker is not None:
            self._checker.kill()

    def health_error(self) -> str | None:
        """Why tasks are not taken care of, or ``None``."""
        if self._checker is None or self._checker.dead:
            return "nobody watches for lost workers"
        return self._claims.health_error() or self._placer.health_error()

    # Tasks

    def submit(self, spec: TaskSpec, idempotency: Idempotency | None = None) -> tuple[Task, bool]:
        """Wait until the task is durable; the task, and whether it is new or that of an earlier request with the key.

        Raises ``TaskRefused``, ``StoreUnavailable``, ``IdempotencyConflict``, ``MasterStopping``; there is no task
        then.
        """
        if self._stopping.is_set():
            raise MasterStopping("the master is stopping")
        spec = allowed(spec, self._task_policy)
        change = submitted(self._new_id(), spec, self._clock.wall())
        task_id = self._store.submit(Changes((change.task,), (), tuple(change.events)), idempotency)
        if task_id != change.task.task_id:
            return self._store.details(task_id).task, False
        self._ledger.accept(change.task)
        return change.task, True

    def cancel(self, task_id: str) -> Task:
        """Wait until the wish is durable. The task ends when its worker says so, at once if it has none.

        Raises ``UnknownTask``, ``TaskAlreadyFinished``.
        """
        entry = self._ledger.live.get(task_id)
        if entry is None:
            task = self._store.details(task_id).task
            cancelled(task, None, self._clock.wall())
            return task
        change = cancelled(entry.task, entry.attempt, self._clock.wall())
        durable = Event()
        if change is None:
            self._ledger.after_all_before(durable.set)
        else:
            self._ledger.apply(entry, change, durable.set)
        task = entry.task if change is None else change.task
        durable.wait()
        return task

    def find(self, query: TaskQuery) -> TaskPage:
        """Wait for a page. Raises ``InvalidCursor``."""
        return self._store.find(query)

    def details(self, task_id: str) -> TaskDetails:
        """Wait for everything about one task. Raises ``UnknownTask``."""
        return self._store.details(task_id)

    def queue_reason(self, task: Task) -> str | None:
        """Why the task is still queued; ``None`` for one that is not."""
        entry = self._ledger.live.get(task.task_id)
        if task.status is not TaskStatus.QUEUED or entry is None or entry.task.status is not TaskStatus.QUEUED:
            return None
        return self._reasons.of(entry.task, self._clock.wall())

    def read_log(self, task_id: str, attempt: int | None, offset: int, limit: int) -> tuple[int, LogSlice]:
        """Wait for a part of an attempt's log; ``None``: of the newest attempt, whose number is returned.

        The number is 0 before the first attempt, and the log empty. Raises ``UnknownTask``, ``LogExpired``.
        """
        if attempt is None:
            entry = self._ledger.live.get(task_id)
            attempt = (self._store.details(task_id).task if entry is None else entry.task).attempt
        if attempt == 0:
            return 0, LogSlice(0, b"", 0)
        log = self._store.read_log(task_id, attempt, offset, limit)
        if log.expired:
            raise LogExpired(f"the log of {task_id} was deleted after the time for which logs are kept")
        return attempt, log

    def watch(self, task_id: str) -> TaskWatch:
        """A context manager in which one can wait for news of the task and its log."""
        return TaskWatch(self._ledger.watches, task_id)

    # Workers

    def worker_attempts(self, worker_id: str, limit: int = 100) -> Sequence[tuple[Attempt, Task]]:
        """Wait for what was assigned to the worker, newest first. Raises ``UnknownWorker``."""
        attempts = self._store.worker_attempts(worker_id, limit)
        if not attempts and not self._telemetry.knows_worker(worker_id):
            raise UnknownWorker(worker_id)
        return attempts

    def drain(self, worker_id: str, reason: str) -> None:
        """Give the worker no new tasks; those that it has run on. Waits until durable. Raises ``UnknownWorker``."""
        self._change_drain(worker_id, Drain(worker_id, reason, self._clock.wall()))

    def undrain(self, worker_id: str) -> None:
        """Give the worker tasks again. Waits until durable. Raises ``UnknownWorker``."""
        self._change_drain(worker_id, None)

    def drain_of(self, worker_id: str) -> Drain | None:
        """Whether the worker is drained, why and since when."""
        return self._ledger.fleet.drain_of(worker_id)

    def _fail_without_secrets(self, live: Sequence[LiveTask]) -> None:
        """What is queued and can never begin ends now; what a worker has may go on, but is not tried again."""
        lost = [found.task for found in live if found.task.spec.env_is_lost]
        if lost:
            _LOGGER.error("the key of %d tasks' environments is lost: those that have not begun fail", len(lost))
        for task in lost:
            entry = self._ledger.live.get(task.task_id)
            if entry is not None and task.status is TaskStatus.QUEUED:
                self._ledger.apply(entry, secrets_lost(task, self._clock.wall()))

    def _change_drain(self, worker_id: str, drain: Drain | None) -> None:
        if not self._telemetry.knows_worker(worker_id) and self.drain_of(worker_id) is None:
            raise UnknownWorker(worker_id)
        self._store.save_drain(worker_id, drain)
        self._ledger.fleet.set_drain(worker_id, drain)
        self._ledger.show_allocation(worker_id)
        reason = "" if drain is None else drain.reason
        self._ledger.send(worker_id, pb.MasterMessage(drain=pb.Drain(draining=drain is not None, reason=reason)))
        self._ledger.on_room()

    def _oldest_queued_seconds(self) -> float:
        queued_at = self._ledger.live.oldest_queued_at()
        return 0.0 if queued_at is None else max(self._clock.wall() - queued_at, 0.0)

    def _watch_absences(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            try:
                self.workers.give_up()
            except Exception:
                _LOGGER.exception("the check for lost workers failed")
