"""What the workers say of attempts, and what becomes of those whose worker says nothing any more.

Each message is answered when what follows from it is durable. What is about somebody else's attempt is told to be
stale, and the worker ends that attempt.
"""

import logging
from collections.abc import Callable, Sequence

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import StaleReport
from fleetpulse.master.tasks.absence import LostWorkerTracker
from fleetpulse.master.tasks.claims import ForeignReport
from fleetpulse.master.tasks.live import LiveEntry, Start
from fleetpulse.master.tasks.ports import TaskStore, WorkerLink
from fleetpulse.master.tasks.records import Attempt
from fleetpulse.master.tasks.registry import TaskRegistry
from fleetpulse.master.tasks.transitions import lost, reported
from fleetpulse.master.tasks.wire import (
    LOG_LIMIT_BYTES,
    held_from,
    kept_attempt,
    log_ack,
    log_chunk_from,
    report_from,
    stop_message,
    update_ack,
)
from fleetpulse.master.telemetry.records import Clock, WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

_LOG_SLACK_BYTES = 64 * 1024
"""For the mark that says where a log was cut."""


class AttemptReportHandler:
    """Called by the workers' streams and by the TelemetryManager (it is a ``TelemetryObserver``), on the hub."""

    def __init__(
        self,
        ledger: TaskRegistry,
        store: TaskStore,
        absences: LostWorkerTracker,
        judge: Callable[[ForeignReport], None],
        terms: LeaseConfig,
        clock: Clock,
    ) -> None:
        """``judge`` is told of what was refused, and does not wait."""
        self._ledger = ledger
        self._store = store
        self._absences = absences
        self._judge = judge
        self._terms = terms
        self._clock = clock
        self._silent_until = 0.0
        ledger.instruments.rescheduling_held.set_function(lambda: int(absences.guard.is_holding(clock.monotonic())))

    # From the streams

    def register(self, register: pb.Register, link: WorkerLink) -> Sequence[pb.KeptAttempt]:
        """A worker is on the line: which of the attempts that it holds are still its own.

        What it was told to run and does not hold is lost; what was never its own it is accused of on the ``link``, on
        which nothing is sent yet. Raises ``InvalidMessage``, and has changed nothing then.
        """
        held = held_from(register)
        worker_id, ledger = register.worker_id, self._ledger
        self._store.save_worker(worker_id, register.hostname, dict(register.labels), self._clock.wall())
        own = {attempt.key: entry for entry, attempt in ledger.live.on_worker(worker_id)}
        for key, entry in own.items() if not register.attempts_unknown else ():
            if key not in held and entry.start is Start.SENT:
                self._lose(entry, f"worker {worker_id} came back without it")
        kept = {key: own[key].log_durable_bytes for key in held if key in own}
        for key in held:
            # Not to be forgotten before it is durable; the worker says it again.
            if (settling_bytes := ledger.settling_log_bytes(worker_id, key)) is not None:
                kept[key] = settling_bytes
        if others := held - kept.keys():
            _LOGGER.info("worker %s: ends %d attempts that are not its own", worker_id, len(others))
            for key in sorted(others):
                self._judge(ForeignReport(worker_id, key, "hold", link))
        return [kept_attempt(key, log_bytes) for key, log_bytes in kept.items()]

    def registered(self, worker_id: str, link: WorkerLink) -> None:
        """The worker has been told what it keeps; ``link`` is the way to it, and what else it should know follows."""
        self._ledger.connect(worker_id, link)
        drain = self._ledger.fleet.drain_of(worker_id)
        if drain is not None:
            self._ledger.send(worker_id, pb.MasterMessage(drain=pb.Drain(draining=True, reason=drain.reason)))
        for entry, attempt in self._ledger.live.on_worker(worker_id):
            self._ledger.send_start_if_due(entry)
            if entry.task.cancel_requested_at is not None and entry.start is Start.SENT:
                self._ledger.send(worker_id, stop_message(attempt, "the task was cancelled"))

    def unregister(self, worker_id: str, link: WorkerLink) -> None:
        """The worker's stream is over."""
        self._ledger.disconnect(worker_id, link)

    def update(self, worker_id: str, update: pb.TaskUpdate, link: WorkerLink) -> None:
        """An attempt has come so far. Raises ``InvalidMessage``."""
        report = report_from(update)
        key = report.task_id, report.attempt
        acknowledged = lambda: link.send(update_ack(update))  # noqa: E731 - it is one line, and used three times
        entry = self._ledger.live.get(report.task_id)
        if self._ledger.when_settled(worker_id, key, acknowledged):
            return
        answer = update_ack(update, stale=True)
        if entry is None:
            self._refuse(ForeignReport(worker_id, key, "report", link), f"task {report.task_id} is not live", answer)
            return
        try:
            change = reported(entry.task, entry.attempt, worker_id, report, self._clock.wall())
        except StaleReport as error:
            self._refuse(ForeignReport(worker_id, key, "report", link), str(error), answer)
            return
        if change is None:
            self._ledger.after_all_before(acknowledged)
        else:
            self._ledger.apply(entry, change, acknowledged)

    def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None:
        """A piece of a log. What is there already is acknowledged again; a gap is not. Raises ``InvalidMessage``."""
        chunk = log_chunk_from(message)
        key = chunk.task_id, chunk.attempt
        entry = self._ledger.live.get(chunk.task_id)
        if self._ledger.when_settled(worker_id, key, lambda: link.send(log_ack(key, chunk.offset + len(chunk.data)))):
            return
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
        fresh = chunk._replace(offset=taken, data=chunk.data[taken - chunk.offset :])
        end = taken + len(fresh.data)
        if not fresh.data or end > LOG_LIMIT_BYTES + _LOG_SLACK_BYTES:
            self._ledger.after_all_before(lambda: link.send(log_ack(key, taken)))
        else:
            self._ledger.append_log(entry, fresh, lambda: link.send(log_ack(key, end)))

    # From telemetry

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is new, has beaten, or turned active or inactive."""
        if not self._ledger.fleet.observe(telemetry):
            return
        worker_id, now = telemetry.worker_id, self._clock.monotonic()
        self._ledger.show_allocation(worker_id)
        if telemetry.is_active:
            self._absences.guard.worker_back(worker_id, now)
            self._absences.back(worker_id)
            self._ledger.on_room()
        else:
            self._absences.guard.worker_lost(worker_id, now)
            # One interval more, in which the others of a fleet that is gone as a whole fall silent, too.
            self._absences.away(worker_id, self._terms.heartbeat_interval_seconds, now)

    def worker_removed(self, worker_id: str) -> None:
        """The worker said goodbye, or was forgotten. Its containers may run on, so it is given time to come back."""
        self._ledger.fleet.forget(worker_id)
        self._absences.guard.worker_left(worker_id, self._clock.monotonic())
        self.expect(worker_id)

    # The service's

    def expect(self, worker_id: str) -> None:
        """Give the worker the time of an inactivity timeout to come back for its attempts, if it has any."""
        if self._ledger.live.on_worker(worker_id):
            patience = self._terms.inactivity_timeout_seconds + self._terms.heartbeat_interval_seconds
            self._absences.away(worker_id, patience, self._clock.monotonic())

    def give_up(self) -> None:
        """Lose the attempts of the workers that were away for too long."""
        for worker_id in self._absences.expired(self._clock.monotonic()):
            attempts = self._ledger.live.on_worker(worker_id)
            if attempts:
                _LOGGER.warning("worker %s is lost with %d attempts", worker_id, len(attempts))
            for entry, _ in attempts:
                self._lose(entry, f"worker {worker_id} is lost: nothing was heard of it in time")

    def _lose(self, entry: LiveEntry, why: str) -> None:
        attempt = entry.attempt
        if attempt is None:
            return
        # If the worker is still connected, only stalled, this is the next thing that it reads.
        self._ledger.send(attempt.worker_id, stop_message(attempt, why, forget=True))
        self._ledger.apply(entry, lost(entry.task, attempt, why, self._clock.wall()))

    def _refuse(self, claim: ForeignReport, what: str, answer: pb.MasterMessage) -> None:
        self._ledger.instruments.reports_stale.inc()
        _LOGGER.log(self._level(), "worker %s speaks of the past: %s", claim.worker_id, what)
        claim.link.send(answer)
        self._judge(claim)

    def _level(self) -> int:
        """Of a line that a worker could have written as often as it likes: at most one a second is seen."""
        now = self._clock.monotonic()
        if now < self._silent_until:
            return logging.DEBUG
        self._silent_until = now + 1.0
        return logging.INFO


def _is_own(entry: LiveEntry, worker_id: str, number: int) -> bool:
    attempt: Attempt | None = entry.attempt
    return attempt is not None and attempt.worker_id == worker_id and attempt.attempt == number
