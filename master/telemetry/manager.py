"""The TelemetryManager: the live table of the fleet, with a greenlet and a bounded queue for every worker.

    rpc --process_heartbeat--> [check, renew lease, queue] --> worker's greenlet --> record --> observers --> callback

``process_heartbeat`` only checks and queues. The callback, which may store history, runs in the worker's own greenlet,
so a slow one delays no other worker. Everything here runs on the gevent hub of one process; nothing needs a lock,
because nothing switches in mid-change.
"""

import logging
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import Event
from msgspec.structs import replace

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
from fleetpulse.master.telemetry.decoding import check_incarnation_id, check_worker_id, decode_heartbeat
from fleetpulse.master.telemetry.leases import LeaseTable, Receipts
from fleetpulse.master.telemetry.readings import Reading
from fleetpulse.master.telemetry.records import (
    Allocation,
    Clock,
    HeartbeatCounts,
    Registration,
    TelemetryObserver,
    UpdateCallback,
    WorkerTelemetry,
)
from fleetpulse.master.telemetry.rows import PendingReading, WorkerRow
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

LIVENESS_CHECK_SECONDS = 0.25
_NO_READING = Reading()


class TelemetryManager:
    """Keeps the latest of every worker. No method but ``shutdown`` switches greenlets."""

    def __init__(
        self,
        lease_config: LeaseConfig,
        instruments: Instruments,
        observers: Sequence[TelemetryObserver] = (),
        clock: Clock = Clock(),  # noqa: B008 - an immutable pair of functions
    ) -> None:
        self.lease_config = lease_config
        self._instruments = instruments.telemetry
        self._observers = tuple(observers)
        self._clock = clock
        self._workers: dict[str, WorkerRow] = {}
        self._leases = LeaseTable(lease_config.inactivity_timeout_seconds)
        self._remembered = LeaseTable(lease_config.retention_seconds)
        self._receipts = Receipts()
        self._callback: UpdateCallback | None = None
        self._revision = 0
        self._checker: gevent.Greenlet[..., None] | None = None
        self._stopping = Event()
        instruments.telemetry.workers.labels("active").set_function(lambda: len(self._leases))
        instruments.telemetry.workers.labels("inactive").set_function(lambda: len(self._workers) - len(self._leases))

    def add_observer(self, observer: TelemetryObserver) -> None:
        """Add an observer that is built after the manager."""
        self._observers += (observer,)

    def set_receipts(self, receipts: Receipts) -> None:
        """Judge silence by these too, from now on: who was heard is active, whatever waits to be handled."""
        self._receipts = receipts

    def register_worker(self, worker_id: str, registration: Registration = Registration()) -> None:  # noqa: B008 - immutable
        """Add the worker to the table, or note its return; either way it is active now.

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
        worker.pending.clear()
        worker.close()
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
        """Publish what the worker's tasks take of it, if it is in the table."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.telemetry.allocation != allocation:
            self._publish(worker, allocation=allocation)

    def release_worker(self, worker_id: str, incarnation_id: str) -> None:
        """The incarnation's connection ended: another one may take the id at once."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.incarnation_id == incarnation_id:
            worker.held = False

    def process_heartbeat(self, heartbeat: pb.Heartbeat, received_at: float | None = None, superseded: int = 0) -> None:
        """Check the heartbeat and queue it for its worker's greenlet. Never blocks.

        ``received_at``, on the monotonic clock, is now by default. ``superseded`` heartbeats came just before it and
        are not missed. Registers an unknown worker. A full queue drops and counts its oldest heartbeat. A repeated
        sequence number is counted and otherwise ignored. Raises ``InvalidMessage``, ``InvalidReading``,
        ``WorkerIdTaken``, ``FleetFull``; then nothing has changed, but a worker that is known was heard, and its record
        says why it was refused.
        """
        now = self._clock.monotonic()
        received_monotonic = now if received_at is None else received_at
        try:
            reading = decode_heartbeat(heartbeat)
            worker = self._worker_for(heartbeat)
        except FleetPulseError as error:
            self._instruments.heartbeats_rejected.labels(error.reason).inc()
            self._note_refusal(heartbeat, error, received_monotonic)
            raise
        if not worker.is_next(heartbeat.sequence_number, superseded):
            self._instruments.heartbeats_rejected.labels("stale").inc()
            return
        # The row's own string, so that it is not kept twice.
        self._renew(worker.telemetry.worker_id, received_monotonic)
        self._instruments.heartbeats_received.inc()
        sent = heartbeat.sent_time_unix_seconds if heartbeat.HasField("sent_time_unix_seconds") else None
        wall = self._clock.wall()
        worker.clock_skew_seconds = None if sent is None else round(sent - wall + now - received_monotonic, 3)
        if worker.put(PendingReading(reading, received_monotonic, wall, sent)):
            self._instruments.heartbeats_dropped.inc()

    @property
    def update_callback(self) -> UpdateCallback | None:
        """The present callback, for one that wraps it."""
        return self._callback

    def set_update_callback(self, callback: UpdateCallback | None) -> None:
        """Call ``callback(worker_id, telemetry)`` after every update, in the worker's own greenlet.

        It may block cooperatively: only its worker waits. An exception out of it is logged and counted.
        """
        self._callback = callback

    @property
    def revision(self) -> int:
        """Grows with every change of the table."""
        return self._revision

    @property
    def worker_count(self) -> int:
        """How many workers are in the table, active or not."""
        return len(self._workers)

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
        is_watching = self._checker is not None and not self._checker.dead
        return None if is_watching else "nobody watches for silent workers"

    def start(self) -> None:
        """Begin to watch for silent workers."""
        self._checker = gevent.spawn(self._watch_liveness)
        self._checker.name = "telemetry-liveness"

    def shutdown(self, timeout_seconds: float = 2.0) -> None:
        """Process what is queued and end every greenlet; those that take longer than the timeout are killed."""
        self._stopping.set()
        greenlets = [worker.greenlet for worker in self._workers.values() if worker.greenlet is not None]
        if self._checker is not None:
            greenlets.append(self._checker)
        for worker in self._workers.values():
            worker.close()
        gevent.joinall(greenlets, timeout=timeout_seconds)
        gevent.killall([greenlet for greenlet in greenlets if not greenlet.dead], timeout=timeout_seconds)

    def check_liveness(self) -> None:
        """Mark workers with expired leases inactive, and forget those that were so for the retention time."""
        now, config = self._clock.monotonic(), self.lease_config
        for worker_id in self._leases.expire(now, self._receipts.heard_until(now), self._last_heard):
            _LOGGER.warning(
                "worker %s is inactive: nothing heard for %.0f s", worker_id, config.inactivity_timeout_seconds
            )
            self._remembered.renew(worker_id, now)
            self._publish(self._workers[worker_id], is_active=False)
        for worker_id in self._remembered.expire(now):
            _LOGGER.info("worker %s is forgotten: it was gone for %.0f s", worker_id, config.retention_seconds)
            self.unregister_worker(worker_id)

    def _admit(self, worker_id: str, registration: Registration) -> WorkerRow:
        config = self.lease_config
        if self._stopping.is_set():
            raise MasterStopping("the master is stopping")
        if len(self._workers) >= config.max_workers:
            raise FleetFull(f"the master is full: it was told to serve at most {config.max_workers} workers")
        wall = self._clock.wall()
        telemetry = WorkerTelemetry(
            worker_id=worker_id, registration=registration, registered_at=wall, is_active=True, last_update=wall,
            reading=_NO_READING, counts=HeartbeatCounts(), revision=self._revision,
        )  # fmt: skip
        worker = self._workers[worker_id] = WorkerRow(telemetry, config.queue_length)
        worker.greenlet = gevent.spawn(self._process_pending, worker)
        worker.greenlet.name = f"telemetry-{worker_id}"
        return worker

    def _worker_for(self, heartbeat: pb.Heartbeat) -> WorkerRow:
        """The row of the heartbeat's worker, registered or taken over if need be."""
        worker_id, incarnation_id = heartbeat.worker_id, heartbeat.incarnation_id
        worker = self._workers.get(worker_id)
        if worker is not None and worker.incarnation_id == incarnation_id:
            return worker
        check_incarnation_id(incarnation_id)
        known = Registration() if worker is None else worker.telemetry.registration
        self.register_worker(worker_id, replace(known, incarnation_id=incarnation_id))
        return self._workers[worker_id]

    def _note_refusal(self, heartbeat: pb.Heartbeat, error: FleetPulseError, received_at: float) -> None:
        worker = self._workers.get(heartbeat.worker_id)
        if worker is None or worker.incarnation_id != heartbeat.incarnation_id:
            return  # It may be anybody.
        self._renew(worker.telemetry.worker_id, received_at)
        worker.refuse(str(error), self._clock.wall())
        self._publish(worker, is_active=True, counts=worker.counts)

    def _renew(self, worker_id: str, now: float) -> None:
        self._leases.renew(worker_id, now)
        self._remembered.drop(worker_id)

    def _last_heard(self, worker_id: str) -> float | None:
        return self._receipts.last_heard(worker_id, self._workers[worker_id].incarnation_id)

    def _refuse_if_beating(self, worker: WorkerRow, now: float) -> None:
        """Raise ``WorkerIdTaken`` unless the holder lost its connection or missed two heartbeats."""
        worker_id = worker.telemetry.worker_id
        silent = self._leases.silent_seconds(worker_id, now)
        heard_at = self._receipts.last_heard(worker_id, worker.incarnation_id)
        if silent is not None and heard_at is not None:
            silent = min(silent, now - heard_at)
        grace_seconds = 2.0 * self.lease_config.heartbeat_interval_seconds
        if worker.held and silent is not None and silent <= grace_seconds:
            _LOGGER.warning("worker id %s is taken: another incarnation beat %.1f s ago", worker_id, silent)
            raise WorkerIdTaken(
                f"worker id {worker_id} is in use: another process with this id beat {silent:.1f} s ago; give one of "
                f"them another id, or try again when the other is {grace_seconds:.0f} s silent"
            )

    def _process_pending(self, worker: WorkerRow) -> None:
        """Body of a worker's greenlet."""
        while True:
            worker.wake.wait()
            while worker.pending:
                try:
                    self._process(worker, worker.pending.pop(0))
                except Exception:
                    _LOGGER.exception("worker %s: a heartbeat could not be processed", worker.telemetry.worker_id)
            if worker.closed:
                return

    def _process(self, worker: WorkerRow, pending: PendingReading) -> None:
        is_active = worker.telemetry.worker_id in self._leases
        last_update, reading = pending.received_wall, pending.reading
        self._publish(worker, reading=reading, is_active=is_active, last_update=last_update, counts=worker.counts)
        visible = self._clock.monotonic()
        self._instruments.receipt_to_visible.observe(visible - pending.received_monotonic)
        if pending.sent_wall is not None:
            # A clock that is ahead must not make the sum fall, which is a counter.
            self._instruments.sent_to_visible.observe(max(self._clock.wall() - pending.sent_wall, 0.0))
        if self._callback is not None:
            try:
                self._callback(worker.telemetry.worker_id, worker.telemetry)
            except (Exception, gevent.Timeout):
                self._instruments.callback_failures.inc()
                _LOGGER.exception("worker %s: the update callback failed", worker.telemetry.worker_id)

    def _publish(self, worker: WorkerRow, **changes: Any) -> None:
        """Change the worker's record, and tell the observers."""
        self._revision += 1
        worker.telemetry = telemetry = replace(worker.telemetry, revision=self._revision, **changes)
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
