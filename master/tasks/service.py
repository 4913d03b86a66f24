"""The TaskService: what REST asks for. Submit, cancel, look, follow, drain.

Reads come from the store, which holds what is durable; only why a task waits is known in memory alone.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import gevent
from gevent.event import Event

from fleetpulse.master.config import QueueLimits
from fleetpulse.master.errors import LogExpired, MasterStopping, QuotaExceeded, TaskRefused, UnknownWorker
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.tasks.attempt_reports import AttemptReportHandler, ForeignReports
from fleetpulse.master.tasks.lost_workers import EvictionLimiter, LostWorkerTracker
from fleetpulse.master.tasks.placement import Policy, best_fit
from fleetpulse.master.tasks.queue_reasons import QueueReasons
from fleetpulse.master.tasks.quotas import QueueQuotas
from fleetpulse.master.tasks.records import (
    Attempt,
    Changes,
    Drain,
    Idempotency,
    LiveTask,
    LogSlice,
    Task,
    TaskDetails,
    TaskPage,
    TaskQuery,
    TaskStatus,
    TaskStore,
)
from fleetpulse.master.tasks.registry import TaskRegistry, TaskWatch
from fleetpulse.master.tasks.request import TaskRequest
from fleetpulse.master.tasks.scheduler import Scheduler
from fleetpulse.master.tasks.transitions import cancelled, secrets_lost, submitted
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import PolicyInput, TaskPolicy, apply_defaults, check_policy

_LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
_ID_BYTES = 8


def new_task_id() -> str:
    """``task-`` and 16 random hexadecimal digits."""
    return f"task-{secrets.token_hex(_ID_BYTES)}"


def apply_policy(request: TaskRequest, policy: TaskPolicy) -> TaskRequest:
    """Returns the request with the policy's defaults. Raises ``TaskRefused`` with every rule that it breaks."""
    texts_and_size = request.docker_image, request.command, request.env, request.cpu_required, request.memory_bytes
    task = PolicyInput(*texts_and_size, request.read_only, request.user, request.network)
    if refusals := check_policy(policy, task):
        raise TaskRefused(refusals)
    return request.model_copy(update=apply_defaults(policy, task)._asdict())


class TaskService:
    """Built, started and stopped on the hub. "Waits" means cooperatively, for the store.

    ``reports`` is for the workers' streams, and observes telemetry.
    """

    def __init__(
        self,
        store: TaskStore,
        telemetry: TelemetryManager,
        instruments: Instruments,
        clock: Clock = Clock(),  # noqa: B008 - an immutable pair of functions
        new_id: Callable[[], str] = new_task_id,
        policy: Policy = best_fit,
        task_policy: TaskPolicy = TaskPolicy(),  # noqa: B008 - immutable
        queue_limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._new_id = new_id
        self._task_policy = task_policy
        capacity_freed = Event()
        self._registry = TaskRegistry(
            store, telemetry, instruments, capacity_freed.set, QueueQuotas(queue_limits), clock.monotonic
        )
        self._limiter = EvictionLimiter()
        self._foreign_reports = ForeignReports(store, instruments.tasks)
        lease = telemetry.lease_config
        lost_workers = LostWorkerTracker(self._limiter, lease.inactivity_timeout_seconds)
        self.reports = AttemptReportHandler(
            self._registry, store, lost_workers, self._foreign_reports.check, lease, clock
        )
        self._scheduler = Scheduler(self._registry, capacity_freed, clock, policy)
        self._reasons = QueueReasons(self._registry.capacity, self._registry.live, self._scheduler)
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._stopping = Event()
        instruments.tasks.oldest_queued.set_function(self._oldest_queued_seconds)

    # Lifecycle

    def start(self) -> None:
        """Loads what had not ended, and begins to place tasks. Waits; to be called before a worker can connect."""
        for drain in self._store.drains():
            self._registry.capacity.set_drain(drain.worker_id, drain)
        live = self._store.load_live()
        self._registry.load(live, self._store.count_by_status())
        self._fail_without_secrets(live)
        workers = set(self._registry.live.workers())
        self._limiter.expect(workers, self._clock.monotonic())
        for worker_id in workers:
            self.reports.expect(worker_id)
        if live:
            _LOGGER.info("%d tasks had not ended when the master started", len(live))
        runs = {
            "task-scheduler": self._scheduler.run,
            "task-ownership": self._foreign_reports.run,
            "task-lost-workers": self._watch_lost_workers,
        }
        for name, run in runs.items():
            self._greenlets.append(gevent.spawn(run))
            self._greenlets[-1].name = name
        self._registry.on_capacity_freed()

    def stop(self) -> None:
        """Places no more. What is live stays so, and is found again."""
        self._stopping.set()
        gevent.killall(self._greenlets)

    def health_error(self) -> str | None:
        """Returns why tasks are not taken care of, or ``None``."""
        if not self._greenlets:
            return "not started"
        ended = ", ".join(greenlet.name for greenlet in self._greenlets if greenlet.dead)
        return f"{ended} does not run" if ended else self._scheduler.health_error()

    # Tasks

    def submit(
        self, request: TaskRequest, idempotency: Idempotency | None = None, submitter: str | None = None
    ) -> tuple[Task, bool]:
        """Waits until the task is durable. Returns it, and whether it is new; else an earlier request with the key
        made it. ``submitter`` is the name whose quota it counts against.

        Raises ``TaskRefused``, ``QuotaExceeded``, ``StoreUnavailable``, ``IdempotencyConflict``, ``MasterStopping``;
        there is no task then.
        """
        if self._stopping.is_set():
            raise MasterStopping("the master is stopping")
        request = apply_policy(request, self._task_policy)
        change = submitted(self._new_id(), request, self._clock.wall(), submitter)
        quotas = self._registry.quotas
        try:
            # Counted before the wait, so that requests that come at once cannot pass together.
            quotas.take(submitter, request)
        except QuotaExceeded:
            known = None if idempotency is None else self._store.submitted_with(idempotency)
            if known is None:
                raise
            return self._store.details(known).task, False
        is_new = False
        try:
            task_id = self._store.submit(Changes((change.task,), (), tuple(change.events)), idempotency)
            is_new = task_id == change.task.task_id
        finally:
            if not is_new:
                quotas.release(submitter, request)
        if not is_new:
            return self._store.details(task_id).task, False
        self._registry.accept(change.task)
        return change.task, True

    def cancel(self, task_id: str) -> Task:
        """Waits until the cancellation is durable. The task ends when its worker says so, at once if it has none.

        Raises ``UnknownTask``, ``TaskAlreadyFinished``.
        """
        entry = self._registry.live.get(task_id)
        if entry is None:
            task = self._store.details(task_id).task
            cancelled(task, None, self._clock.wall())
            return task
        change = cancelled(entry.task, entry.attempt, self._clock.wall())
        durable = Event()
        if change is None:
            self._registry.after_pending_saves(durable.set)
        else:
            self._registry.apply(entry, change, durable.set)
        task = entry.task if change is None else change.task
        durable.wait()
        return task

    def find(self, query: TaskQuery) -> TaskPage:
        """Waits for a page. Raises ``InvalidCursor``."""
        return self._store.find(query)

    def details(self, task_id: str) -> TaskDetails:
        """Waits for everything about one task. Raises ``UnknownTask``."""
        return self._store.details(task_id)

    def queue_reason(self, task: Task) -> str | None:
        """Returns why the task is still queued; ``None`` for one that is not."""
        entry = self._registry.live.get(task.task_id)
        if task.status is not TaskStatus.QUEUED or entry is None or entry.task.status is not TaskStatus.QUEUED:
            return None
        return self._reasons.reason(entry.task, self._clock.wall())

    def is_assigned(self, worker_id: str, task_id: str, attempt: int) -> bool:
        """Whether this is the live attempt of the task, and the worker's. Does not wait."""
        return self._registry.live.is_assigned(worker_id, task_id, attempt)

    def read_log(self, task_id: str, attempt: int | None, offset: int, limit: int) -> tuple[int, LogSlice]:
        """Waits for a part of an attempt's log; ``None``: of the newest attempt. Returns the attempt's number, too.

        The number is 0 before the first attempt, and the log empty. Raises ``UnknownTask``, ``LogExpired``.
        """
        if attempt is None:
            entry = self._registry.live.get(task_id)
            attempt = (self._store.details(task_id).task if entry is None else entry.task).attempt
        if attempt == 0:
            return 0, LogSlice(0, b"", 0)
        log = self._store.read_log(task_id, attempt, offset, limit)
        if log.expired:
            raise LogExpired(f"the log of {task_id} was deleted after the time for which logs are kept")
        return attempt, log

    def watch(self, task_id: str) -> AbstractContextManager[TaskWatch]:
        """Returns a context in which one can wait for updates of the task and its log."""
        return self._registry.watchers.watch(task_id)

    # Workers

    def worker_attempts(self, worker_id: str, limit: int = 100) -> Sequence[tuple[Attempt, Task]]:
        """Waits for what was assigned to the worker, newest first. Raises ``UnknownWorker``."""
        attempts = self._store.worker_attempts(worker_id, limit)
        if not attempts and not self._telemetry.knows_worker(worker_id):
            raise UnknownWorker(worker_id)
        return attempts

    def drain(self, worker_id: str, reason: str) -> None:
        """Gives the worker no new tasks; those that it has run on. Waits until durable. Raises ``UnknownWorker``."""
        self._change_drain(worker_id, Drain(worker_id, reason, self._clock.wall()))

    def undrain(self, worker_id: str) -> None:
        """Gives the worker tasks again. Waits until durable. Raises ``UnknownWorker``."""
        self._change_drain(worker_id, None)

    def drain_of(self, worker_id: str) -> Drain | None:
        """Returns the worker's drain, with its reason and its beginning; ``None`` when it is not drained."""
        return self._registry.capacity.drain_of(worker_id)

    def ask_for_cores(self, worker_id: str, seconds: float) -> None:
        """Has the worker report its cores for so long, if it is connected."""
        self._registry.send(worker_id, pb.MasterMessage(report_cores=pb.ReportCores(seconds=seconds)))

    def _fail_without_secrets(self, live: Sequence[LiveTask]) -> None:
        """Queued tasks that can never begin fail now; an attempt that a worker has may go on, but is not retried."""
        lost = [found.task for found in live if found.task.env_is_lost]
        if lost:
            _LOGGER.error("the key of %d tasks' environments is lost: those that have not begun fail", len(lost))
        for task in lost:
            entry = self._registry.live.get(task.task_id)
            if entry is not None and task.status is TaskStatus.QUEUED:
                self._registry.apply(entry, secrets_lost(task, self._clock.wall()))

    def _change_drain(self, worker_id: str, drain: Drain | None) -> None:
        if not self._telemetry.knows_worker(worker_id) and self.drain_of(worker_id) is None:
            raise UnknownWorker(worker_id)
        self._store.save_drain(worker_id, drain)
        self._registry.capacity.set_drain(worker_id, drain)
        self._registry.publish_allocation(worker_id)
        reason = "" if drain is None else drain.reason
        self._registry.send(worker_id, pb.MasterMessage(drain=pb.Drain(draining=drain is not None, reason=reason)))
        self._registry.on_capacity_freed()

    def _oldest_queued_seconds(self) -> float:
        queued_at = self._registry.live.oldest_queued_at()
        return 0.0 if queued_at is None else max(self._clock.wall() - queued_at, 0.0)

    def _watch_lost_workers(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            try:
                self.reports.check_lost_workers()
                self.reports.check_degraded_workers()
            except Exception:
                _LOGGER.exception("the check for lost workers failed")
