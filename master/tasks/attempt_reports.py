"""What workers report of attempts, and what becomes of attempts whose worker reports nothing any more.

Each message is acknowledged when what follows from it is durable. A report about an attempt that is not the worker's
current one is answered as stale, and the worker ends that attempt. If the attempt never was the worker's, the violation
goes to the audit trail. Only the store knows; so it is looked up after the refusal, and delays no stream.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from gevent.queue import Full, Queue

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import StaleReport, StoreUnavailable
from fleetpulse.master.instruments import TaskInstruments
from fleetpulse.master.tasks.capacity import StartFailure
from fleetpulse.master.tasks.lost_workers import LostWorkerTracker
from fleetpulse.master.tasks.messages import (
    WorkerLink,
    held_from,
    kept_attempt,
    log_ack,
    log_chunk_from,
    report_from,
    stop_message,
    update_ack,
)
from fleetpulse.master.tasks.records import AttemptKey, AttemptStatus, TaskStore
from fleetpulse.master.tasks.registry import LiveEntry, Start, TaskRegistry, demand_of
from fleetpulse.master.tasks.transitions import (
    MACHINE_REASONS,
    MAX_WORKERS_TRIED,
    Change,
    Report,
    failed_to_start,
    lost,
    reported,
)
from fleetpulse.master.telemetry.records import Clock, WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import LOG_LIMIT_BYTES

_LOGGER = logging.getLogger(__name__)

_LOG_SLACK_BYTES = 64 * 1024
"""For the mark that says where a log was cut."""


class ForeignReport(NamedTuple):
    """A worker spoke of this attempt and was refused; ``action`` is ``hold``, ``report`` or ``log``."""

    worker_id: str
    key: AttemptKey
    action: str
    link: WorkerLink


class ForeignReports:
    """Checks who owned the attempts of refused reports, one after the other."""

    def __init__(self, store: TaskStore, instruments: TaskInstruments, max_waiting: int = 10_000) -> None:
        self._store, self._instruments = store, instruments
        self._waiting: Queue[ForeignReport] = Queue(max_waiting)

    def check(self, report: ForeignReport) -> None:
        """Has the report checked. Does not wait; one that cannot be looked up counts as a violation."""
        try:
            self._waiting.put_nowait(report)
        except Full:
            self._report_violation(report, "too many reports wait to be looked up")

    def run(self) -> None:
        """Checks for ever, in a greenlet of its own."""
        while True:
            report = self._waiting.get()
            try:
                owner = self._store.assigned_to(*report.key)
                reason = "there is no such attempt" if owner is None else f"it is of worker {owner}"
            except StoreUnavailable:
                owner, reason = None, "the store does not answer, so it could not be looked up"
            except Exception:
                _LOGGER.exception("the owner of an attempt could not be looked up")
                owner, reason = None, "it could not be looked up"
            if owner != report.worker_id:
                self._report_violation(report, reason)

    def _report_violation(self, report: ForeignReport, reason: str) -> None:
        self._instruments.reports_foreign.inc()
        task_id, number = report.key
        report.link.report_violation(report.action, f"{task_id}/{number}", reason)


class AttemptReportHandler:
    """Called by the workers' streams and by the TelemetryManager (it is a ``TelemetryObserver``), on the hub."""

    def __init__(
        self,
        registry: TaskRegistry,
        store: TaskStore,
        lost_workers: LostWorkerTracker,
        check_ownership: Callable[[ForeignReport], None],
        lease: LeaseConfig,
        clock: Clock,
    ) -> None:
        """``check_ownership`` gets what was refused, and does not wait."""
        self._registry, self._store = registry, store
        self._lost_workers = lost_workers
        self._check_ownership = check_ownership
        self._lease, self._clock = lease, clock
        self._quiet_until = 0.0
        limiter = lost_workers.limiter
        registry.instruments.rescheduling_held.set_function(lambda: int(limiter.is_holding(clock.monotonic())))

    # From the streams

    def register(self, register: pb.Register, link: WorkerLink) -> Sequence[pb.KeptAttempt]:
        """Returns which of the attempts that a worker holds it is to keep. Nothing is sent on ``link`` yet.

        An attempt that was sent to it and that it does not hold is lost; the ownership of one that is not its own is
        checked. Raises ``InvalidMessage``, and has changed nothing then.
        """
        held = held_from(register)
        worker_id, registry = register.worker_id, self._registry
        self._store.save_worker(worker_id, register.hostname, dict(register.labels), self._clock.wall())
        own = {attempt.key: entry for entry, attempt in registry.live.on_worker(worker_id)}
        for key, entry in own.items() if not register.attempts_unknown else ():
            if key not in held and entry.start is Start.SENT:
                self._lose(entry, f"worker {worker_id} came back without it")
        kept = {key: own[key].log_durable_bytes for key in held if key in own}
        for key in held:
            # Not to be forgotten before its end is durable; the worker reports it again.
            if (pending := registry.pending_end(worker_id, key)) is not None:
                kept[key] = pending.log_bytes
        if others := held - kept.keys():
            _LOGGER.info("worker %s: ends %d attempts that are not its own", worker_id, len(others))
            for key in sorted(others):
                self._check_ownership(ForeignReport(worker_id, key, "hold", link))
        return [kept_attempt(key, log_bytes) for key, log_bytes in kept.items()]

    def registered(self, worker_id: str, link: WorkerLink) -> None:
        """The worker knows what it keeps; sends it what else is due over ``link``."""
        self._registry.connect(worker_id, link)
        drain = self._registry.capacity.drain_of(worker_id)
        if drain is not None:
            self._registry.send(worker_id, pb.MasterMessage(drain=pb.Drain(draining=True, reason=drain.reason)))
        for entry, attempt in self._registry.live.on_worker(worker_id):
            self._registry.send_start_if_due(entry)
            if entry.task.cancel_requested_at is not None and entry.start is Start.SENT:
                self._registry.send(worker_id, stop_message(attempt, "the task was cancelled"))

    def unregister(self, worker_id: str, link: WorkerLink) -> None:
        """The worker's stream is over."""
        self._registry.disconnect(worker_id, link)

    def update(self, worker_id: str, update: pb.TaskUpdate, link: WorkerLink) -> None:
        """Takes in an attempt's new status. Raises ``InvalidMessage``."""
        report = report_from(update)
        key = report.task_id, report.attempt
        acknowledge = partial(link.send, update_ack(update))
        if (pending := self._registry.pending_end(worker_id, key)) is not None:
            pending.callbacks.append(acknowledge)
            return
        entry = self._registry.live.get(report.task_id)
        try:
            if entry is None:
                raise StaleReport(f"task {report.task_id} is not live")  # noqa: TRY301 - refused like the others
            has_other_worker = self._has_other_worker(entry, worker_id, report)
            change = reported(
                entry.task, entry.attempt, worker_id, report, self._clock.wall(), has_other_worker=has_other_worker
            )
        except StaleReport as error:
            self._refuse(ForeignReport(worker_id, key, "report", link), str(error), update_ack(update, stale=True))
            return
        if change is None:
            self._registry.after_pending_saves(acknowledge)
        else:
            self._judge_workers(entry, worker_id, report, change)
            self._registry.apply(entry, change, acknowledge)

    def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None:
        """Takes in a piece of a log. A known piece is acknowledged again; a gap is not. Raises ``InvalidMessage``."""
        chunk = log_chunk_from(message)
        key = chunk.task_id, chunk.attempt
        if (pending := self._registry.pending_end(worker_id, key)) is not None:
            pending.callbacks.append(partial(link.send, log_ack(key, chunk.offset + len(chunk.data))))
            return
        entry = self._registry.live.get(chunk.task_id)
        if entry is None or not _is_own(entry, worker_id, chunk.attempt):
            what = f"a log of attempt {chunk.attempt} of {chunk.task_id}"
            self._refuse(ForeignReport(worker_id, key, "log", link), what, log_ack(key, 0, stale=True))
            return
        taken = entry.log_taken_bytes
        if chunk.offset > taken:
            _LOGGER.log(
                self._level(), "worker %s left a gap in the log of %s: %d to %d", worker_id, key, taken, chunk.offset
            )
            return
        new = chunk._replace(offset=taken, data=chunk.data[taken - chunk.offset :])
        end = taken + len(new.data)
        if not new.data or end > LOG_LIMIT_BYTES + _LOG_SLACK_BYTES:
            self._registry.after_pending_saves(partial(link.send, log_ack(key, taken)))
        else:
            self._registry.append_log(entry, new, partial(link.send, log_ack(key, end)))

    # From telemetry

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is new, has sent a heartbeat, or turned active or inactive."""
        if not self._registry.capacity.observe(telemetry):
            return
        worker_id, now = telemetry.worker_id, self._clock.monotonic()
        self._registry.publish_allocation(worker_id)
        if telemetry.is_active:
            self._lost_workers.limiter.worker_back(worker_id, now)
            self._lost_workers.back(worker_id)
            self._registry.on_capacity_freed()
        else:
            self._lost_workers.limiter.worker_lost(worker_id, now)
            # One interval more, in which the others of a fleet that is lost as a whole fall silent, too.
            self._lost_workers.away(worker_id, self._lease.heartbeat_interval_seconds, now)

    def worker_removed(self, worker_id: str) -> None:
        """The worker said goodbye, or was forgotten. Its containers may run on, so it gets time to come back."""
        self._registry.capacity.forget(worker_id)
        self._lost_workers.limiter.worker_left(worker_id, self._clock.monotonic())
        self.expect(worker_id)

    # From the service

    def expect(self, worker_id: str) -> None:
        """Gives a worker with live attempts one inactivity timeout to come back for them."""
        if self._registry.live.on_worker(worker_id):
            grace = self._lease.inactivity_timeout_seconds + self._lease.heartbeat_interval_seconds
            self._lost_workers.away(worker_id, grace, self._clock.monotonic())

    def check_lost_workers(self) -> None:
        """Gives up the attempts of the workers that were away for too long."""
        for worker_id in self._lost_workers.expired(self._clock.monotonic()):
            attempts = self._registry.live.on_worker(worker_id)
            if attempts:
                _LOGGER.warning("worker %s is lost with %d attempts", worker_id, len(attempts))
            for entry, _ in attempts:
                self._lose(entry, f"worker {worker_id} is lost: nothing was heard of it in time")

    def check_degraded_workers(self) -> None:
        """Lets a task try each worker that was avoided for long enough."""
        for worker_id in self._registry.capacity.check_faults():
            self._registry.publish_allocation(worker_id)
            self._registry.on_capacity_freed()

    def _has_other_worker(self, entry: LiveEntry, worker_id: str, report: Report) -> bool:
        """Whether an attempt that fails to start may be tried elsewhere."""
        if entry.attempt is None or not failed_to_start(entry.attempt, report):
            return False
        tried = {*entry.failed_on, worker_id}
        constraints = entry.task.request.constraints
        return len(tried) < MAX_WORKERS_TRIED and self._registry.capacity.has_other(
            demand_of(entry.task), constraints, tried
        )

    def _judge_workers(self, entry: LiveEntry, worker_id: str, report: Report, change: Change) -> None:
        """Learns which workers are degraded: a task that runs tells of those that could not start it."""
        capacity, attempt = self._registry.capacity, entry.attempt
        if attempt is not None and failed_to_start(attempt, report):
            outcome = report.outcome
            failure = StartFailure(outcome.reason or "", outcome.error or "", self._clock.monotonic())
            if failure.reason in MACHINE_REASONS:
                capacity.start_failed(worker_id, failure)
            if change.task.retries_used > entry.task.retries_used:
                entry.failed_on.clear()
            else:
                entry.failed_on[worker_id] = failure
        elif report.status in {AttemptStatus.RUNNING, AttemptStatus.COMPLETED}:
            if capacity.started(worker_id):
                self._registry.publish_allocation(worker_id)
            for other, failure in entry.failed_on.items():
                capacity.start_failed(other, failure)
                self._registry.publish_allocation(other)
            entry.failed_on.clear()

    def _lose(self, entry: LiveEntry, reason: str) -> None:
        attempt = entry.attempt
        if attempt is None:
            return
        # If the worker is still connected, only stalled, this is the next thing that it reads.
        self._registry.send(attempt.worker_id, stop_message(attempt, reason, forget=True))
        self._registry.apply(entry, lost(entry.task, attempt, reason, self._clock.wall()))

    def _refuse(self, report: ForeignReport, what: str, answer: pb.MasterMessage) -> None:
        self._registry.instruments.reports_stale.inc()
        _LOGGER.log(self._level(), "worker %s sent a stale report: %s", report.worker_id, what)
        report.link.send(answer)
        self._check_ownership(report)

    def _level(self) -> int:
        """The level of a line that a worker can cause as often as it likes: at most one a second is INFO."""
        now = self._clock.monotonic()
        if now < self._quiet_until:
            return logging.DEBUG
        self._quiet_until = now + 1.0
        return logging.INFO


def _is_own(entry: LiveEntry, worker_id: str, number: int) -> bool:
    attempt = entry.attempt
    return attempt is not None and attempt.worker_id == worker_id and attempt.attempt == number
