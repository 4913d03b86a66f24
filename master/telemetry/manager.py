"""The TelemetryManager: the live table of the fleet, with a greenlet and a bounded queue for every worker.

    rpc --process_heartbeat--> [check, renew lease, queue] --> worker's greenlet --> record --> observers --> callback

``process_heartbeat`` only checks and hands over. What costs time (rendering for REST and /metrics, a callback that
stores history) happens in the worker's own greenlet, so one slow consumer of one worker's data delays nobody else.
Everything here runs on the gevent hub of one process; nothing needs a lock, because nothing switches in mid-change.
"""

import logging
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import Event

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import (
    FleetFull,
    FleetPulseError,
    MasterStopping,
    UnknownWorker,
    WorkerIdTaken,
    WorkerStillActive,
)
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.decoding import check_incarnation_id, check_worker_id, reading_from
from fleetpulse.master.telemetry.liveness import LeaseTable
from fleetpulse.master.telemetry.ports import Clock, TelemetryObserver, UpdateCallback
from fleetpulse.master.telemetry.records import Allocation, HeartbeatCounts, Reading, Registration, WorkerTelemetry
from fleetpulse.master.telemetry.row import PendingReading, WorkerRow
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

LIVENESS_CHECK_SECONDS = 0.25
_NO_READING = Reading()


class TelemetryManager:
    """Keeps the latest of every worker. No method but ``shutdown`` switches greenlets."""

    def __init__(
        self,
        terms: LeaseConfig,
        instruments: Instruments,
        observers: Sequence[TelemetryObserver] = (),
        clock: Clock = Clock(),  # noqa: B008 - an immutable pair of functions
    ) -> None:
        self.terms = terms
        self._instruments = instruments.telemetry
        self._observers = tuple(observers)
        self._clock = clock
        self._workers: dict[str, WorkerRow] = {}
        self._leases = LeaseTable(terms.inactivity_timeout_seconds)
        self._remembered = LeaseTable(terms.retention_seconds)
        self._callback: UpdateCallback | None = None
        self._revision = 0
        self._checker: gevent.Greenlet[..., None] | None = None
        self._stopping = Event()
        instruments.telemetry.workers.labels("active").set_function(lambda: len(self._leases))
        instruments.telemetry.workers.labels("inactive").set_function(lambda: len(self._workers) - len(self._leases))

    def add_observer(self, observer: TelemetryObserver) -> None:
        """Tell this one, too, from now on; for those that are built with the manager at hand."""
        self._observers += (observer,)

    # Registration

    def register_worker(self, worker_id: str, registration: Registration = Registration()) -> None:  # noqa: B008 - immutable
        """Take the worker into the table, or note that it is back; either way it is active now.

        Raises ``InvalidMessage`` for an id against the rule, ``WorkerIdTaken`` while another incarnation with this id
        beats, ``FleetFull`` past ``max_workers``.
        """
        check_worker_id(worker_id)
        now = self._clock.monotonic()
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._admit(worker_id, registration)
        elif registration.incarnation_id != worker.incarnation_id:
            self._refuse_if_beating(worker, now)
            worker.restart()
            _LOGGER.info("worker %s: a new incarnation took over", worker_id)
        worker.held = True
        self._renew(worker_id, now)
        self._publish(worker, registration=registration, is_active=True, last_update=self._clock.wall())

    def unregister_worker(self, worker_id: str) -> None:
        """Forget the worker: its row, its greenlet, its queue and every view of it. Raises ``UnknownWorker``."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            raise UnknownWorker(worker_id)
        self._leases.drop(worker_id)
        self._remembered.drop(worker_id)
        worker.close(drop_pending=True)
        self._revision += 1
        for observer in self._observers:
            try:
                observer.worker_removed(worker_id)
            except Exception:
                _LOGGER.exception("worker %s: an observer failed on its removal", worker_id)

    def forget_worker(self, worker_id: str) -> None:
        """``unregister_worker`` for a worker that is gone. Raises ``UnknownWorker``, ``WorkerStillActive``."""
        if worker_id in self._leases:
            raise WorkerStillActive(f"worker {worker_id} is active: stop it first, or it would be back in seconds")
        self.unregister_worker(worker_id)

    def set_allocation(self, worker_id: str, allocation: Allocation) -> None:
        """Show what the worker's tasks take of it. A worker that is not in the table is fine."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.telemetry.allocation != allocation:
            self._publish(worker, allocation=allocation)

    def release_worker(self, worker_id: str, incarnation_id: str) -> None:
        """The incarnation's connection ended: another one need not wait until this one counts as silent."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.incarnation_id == incarnation_id:
            worker.held = False

    # Processing

    def process_heartbeat(self, heartbeat: pb.Heartbeat, received_at: float | None = None) -> None:
        """Check the heartbeat and queue it for its worker's greenlet. Never blocks.

        ``received_at`` is when it arrived on the monotonic clock; now, unless a transport knows better. An unknown
        worker is registered. A full queue drops its oldest heartbeat and counts it. A sequence number that was seen
        before is counted and otherwise ignored. Raises ``InvalidMessage``, ``InvalidReading``, ``WorkerIdTaken``,
        ``FleetFull``; then nothing has changed.
        """
        received_monotonic = self._clock.monotonic() if received_at is None else received_at
        try:
            reading = reading_from(heartbeat)
            worker = self._worker_for(heartbeat)
        except FleetPulseError as error:
            self._instruments.heartbeats_rejected.labels(error.reason).inc()
            raise
        if not worker.is_next(heartbeat.sequence_number):
            self._instruments.heartbeats_rejected.labels("stale").inc()
            return
        # The row's own string, so that it is not kept twice.
        self._renew(worker.telemetry.worker_id, received_monotonic)
        self._instruments.heartbeats_received.inc()
        sent = heartbeat.sent_time_unix_seconds if heartbeat.HasField("sent_time_unix_seconds") else None
        if worker.put(PendingReading(reading, received_monotonic, self._clock.wall(), sent)):
            self._instruments.heartbeats_dropped.inc()

    @property
    def update_callback(self) -> UpdateCallback | None:
        """The present one, which whoever sets another calls, too."""
        return self._callback

    def set_update_callback(self, callback: UpdateCallback | None) -> None:
        """Call ``callback(worker_id, telemetry)`` after every update, in the worker's own greenlet.

        It may block cooperatively: only its worker waits. An exception out of it is logged and counted.
        """
        self._callback = callback

    # Queries

    @property
    def revision(self) -> int:
        """Grows with every change of the table."""
        return self._revision

    def knows_worker(self, worker_id: str) -> bool:
        """Whether the worker is in the table, active or not."""
        return worker_id in self._workers

    def get_worker_telemetry(self, worker_id: str) -> WorkerTelemetry:
        """The latest of one worker. Raises ``UnknownWorker``."""
        worker = self._workers.get(worker_id)
        if worker is None:
            raise UnknownWorker(worker_id)
        return worker.telemetry

    def get_all_worker_telemetry(self) -> dict[str, WorkerTelemetry]:
        """The latest of every worker by id, in the order in which they were registered."""
        return {worker_id: worker.telemetry for worker_id, worker in self._workers.items()}

    def health_error(self) -> str | None:
        """Why the manager does not do its work, or ``None``."""
        if self._checker is None or self._checker.dead:
            return "nobody watches for silent workers"
        return None

    # Lifecycle

    def start(self) -> None:
        """Begin to watch for silent workers."""
        self._checker = gevent.spawn(self._watch_liveness)
        self._checker.name = "telemetry-liveness"

    def shutdown(self, timeout_seconds: float = 2.0) -> None:
        """End every greenlet: queued heartbeats are processed first, what takes longer than the timeout is killed."""
        self._stopping.set()
        greenlets = [worker.greenlet for worker in self._workers.values() if worker.greenlet is not None]
        if self._checker is not None:
            greenlets.append(self._checker)
        for worker in self._workers.values():
            worker.close(drop_pending=False)
        gevent.joinall(greenlets, timeout=timeout_seconds)
        gevent.killall([greenlet for greenlet in greenlets if not greenlet.dead], timeout=timeout_seconds)

    def check_liveness(self) -> None:
        """Mark the workers whose lease ran out, and forget those that were gone for the retention time."""
        now = self._clock.monotonic()
        for worker_id in self._leases.expire(now):
            worker = self._workers[worker_id]
            _LOGGER.warning(
                "worker %s is inactive: nothing heard for %.0f s", worker_id, self.terms.inactivity_timeout_seconds
            )
            self._remembered.renew(worker_id, now)
            self._publish(worker, is_active=False)
        for worker_id in self._remembered.expire(now):
            _LOGGER.info("worker %s is forgotten: it was gone for %.0f s", worker_id, self.terms.retention_seconds)
            self.unregister_worker(worker_id)

    # Internals

    def _admit(self, worker_id: str, registration: Registration) -> WorkerRow:
        if self._stopping.is_set():
            raise MasterStopping("the master is stopping")
        if len(self._workers) >= self.terms.max_workers:
            raise FleetFull(f"the master is full: it was told to serve at most {self.terms.max_workers} workers")
        wall = self._clock.wall()
        telemetry = WorkerTelemetry(
            worker_id=worker_id,
            registration=registration,
            registered_at=wall,
            is_active=True,
            last_update=wall,
            reading=_NO_READING,
            counts=HeartbeatCounts(),
            revision=self._revision,
        )
        worker = self._workers[worker_id] = WorkerRow(telemetry, self.terms.queue_length)
        worker.greenlet = gevent.spawn(self._process_pending, worker)
        worker.greenlet.name = f"telemetry-{worker_id}"
        return worker

    def _worker_for(self, heartbeat: pb.Heartbeat) -> WorkerRow:
        """The row that this heartbeat belongs to, registered or taken over if need be."""
        worker_id, incarnation_id = heartbeat.worker_id, heartbeat.incarnation_id
        worker = self._workers.get(worker_id)
        if worker is not None and worker.incarnation_id == incarnation_id:
            return worker
        check_incarnation_id(incarnation_id)
        known = Registration() if worker is None else worker.telemetry.registration
        self.register_worker(worker_id, known._replace(incarnation_id=incarnation_id))
        return self._workers[worker_id]

    def _renew(self, worker_id: str, now: float) -> None:
        self._leases.renew(worker_id, now)
        self._remembered.drop(worker_id)

    def _refuse_if_beating(self, worker: WorkerRow, now: float) -> None:
        """A holder that lost its connection, or missed two heartbeats, gives way to another incarnation."""
        silent = self._leases.silent_seconds(worker.telemetry.worker_id, now)
        patience = 2.0 * self.terms.heartbeat_interval_seconds
        if worker.held and silent is not None and silent <= patience:
            _LOGGER.warning(
                "worker id %s is taken: another incarnation beat %.1f s ago", worker.telemetry.worker_id, silent
            )
            raise WorkerIdTaken(
                f"worker id {worker.telemetry.worker_id} is in use: another process with this id beat {silent:.1f} s "
                f"ago; give one of them another id, or try again when the other is {patience:.0f} s silent"
            )

    def _process_pending(self, worker: WorkerRow) -> None:
        """Body of a worker's greenlet."""
        while True:
            worker.wake.wait()
            worker.wake.clear()
            while worker.pending:
                try:
                    self._process(worker, worker.pending.pop(0))
                except Exception:
                    _LOGGER.exception("worker %s: a heartbeat could not be processed", worker.telemetry.worker_id)
            if worker.closed:
                return

    def _process(self, worker: WorkerRow, pending: PendingReading) -> None:
        self._publish(
            worker,
            reading=pending.reading,
            is_active=worker.telemetry.worker_id in self._leases,
            last_update=pending.received_wall,
            counts=worker.counts,
        )
        visible = self._clock.monotonic()
        self._instruments.receipt_to_visible.observe(visible - pending.received_monotonic)
        if pending.sent_wall is not None:
            self._instruments.sent_to_visible.observe(self._clock.wall() - pending.sent_wall)
        if self._callback is not None:
            try:
                self._callback(worker.telemetry.worker_id, worker.telemetry)
            except (Exception, gevent.Timeout):
                self._instruments.callback_failures.inc()
                _LOGGER.exception("worker %s: the update callback failed", worker.telemetry.worker_id)

    def _publish(self, worker: WorkerRow, **changes: Any) -> None:
        """Change the worker's record, and tell the observers."""
        self._revision += 1
        worker.telemetry = telemetry = worker.telemetry._replace(revision=self._revision, **changes)
        for observer in self._observers:
            try:
                observer.worker_changed(telemetry)
            except Exception:
                _LOGGER.exception("worker %s: an observer failed on a change of it", telemetry.worker_id)

    def _watch_liveness(self) -> None:
        """Body of the checker's greenlet."""
        while not self._stopping.wait(LIVENESS_CHECK_SECONDS):
            try:
                self.check_liveness()
            except Exception:
                _LOGGER.exception("the check for silent workers failed")
