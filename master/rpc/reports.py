"""The workers that one stream carries: ``Report`` of the contract, from an agent that speaks for many. On the hub."""

from typing import TYPE_CHECKING

from fleetpulse.master.errors import (
    FleetPulseError,
    InvalidMessage,
    MasterStopping,
    StreamSuperseded,
    UnknownWorker,
    WorkerNotCarried,
)
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.rpc.status import audit_entry, refusal_entry, status_of
from fleetpulse.master.telemetry.decoding import decode_registration
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_REPORT_ENTRIES

if TYPE_CHECKING:
    from fleetpulse.master.rpc.session import SessionTable, StreamSession

_LARGEST_MESSAGE = 1000
"""Characters of a refusal's text in an answer."""


class CarriedWorker:
    """The session of one carried worker in the ``SessionTable``."""

    __slots__ = ("_carrier", "error", "registration", "worker_id")

    def __init__(self, carrier: "StreamSession", worker_id: str, registration: Registration) -> None:
        self._carrier, self.worker_id, self.registration = carrier, worker_id, registration
        self.error: FleetPulseError | None = None
        """Why the stream no longer carries the worker."""

    @property
    def incarnation_id(self) -> str:
        return self.registration.incarnation_id

    @property
    def certificate(self) -> WorkerCertificate | None:
        """That of the stream."""
        return self._carrier.certificate

    @property
    def heard_at(self) -> float | None:
        """When the report arrived that waits and may have the worker in it (monotonic). Others say nothing of it."""
        return self._carrier.waiting_since

    def end(self, error: FleetPulseError) -> None:
        """Ends the worker's session alone when another stream has taken over, else the stream."""
        if isinstance(error, StreamSuperseded):
            self.error = error
        else:
            self._carrier.end(error)

    def end_if_refused(self) -> None:
        """Ends the stream if its certificate was revoked or has expired."""
        self._carrier.end_if_refused()


class ReportHandler:
    """Handles the reports of one stream. ``lease`` is answered to each, beside what was refused."""

    def __init__(self, table: "SessionTable", carrier: "StreamSession", peer: str) -> None:
        self._table, self._carrier, self._peer = table, carrier, peer
        self._carried: dict[str, CarriedWorker] = {}

    def process(self, report: pb.Report, received_at: float | None, lease: pb.Registered) -> pb.ReportAnswer:
        """Handles every entry and returns the answer. Raises ``InvalidMessage`` for a report that is too long, and
        ``MasterStopping``; what is wrong with an entry is in the answer.
        """
        count = len(report.registrations) + len(report.heartbeats) + len(report.departures)
        if count > MAX_REPORT_ENTRIES:
            raise InvalidMessage(f"report has {count} entries; at most {MAX_REPORT_ENTRIES} are accepted")
        answer = pb.ReportAnswer(
            heartbeat_interval_seconds=lease.heartbeat_interval_seconds,
            inactivity_timeout_seconds=lease.inactivity_timeout_seconds,
            master_version=lease.master_version,
            reconnect_spread_seconds=lease.reconnect_spread_seconds,
        )
        for register in report.registrations:
            try:
                self._register(register)
            except FleetPulseError as error:
                self._refuse(answer, "register", register.worker_id, error)
        carried, beat = self._carried, self._beat
        # A slice is a list, which is walked much faster than protobuf's own sequence.
        for heartbeat in report.heartbeats[:]:
            try:
                beat(carried.get(heartbeat.worker_id), heartbeat, received_at)
            except FleetPulseError as error:
                self._refuse(answer, "report", heartbeat.worker_id, error)
        for departure in report.departures:
            try:
                self._remove(self._current(departure.worker_id), departure.reason)
            except FleetPulseError as error:
                self._refuse(answer, "report", departure.worker_id, error)
        answer.accepted = count - len(answer.refused)
        return answer

    def remove_all(self, reason: str) -> None:
        """The agent says goodbye for all of them."""
        for carried in list(self._carried.values()):
            if carried.error is None:
                self._remove(carried, reason)

    def release_all(self) -> None:
        """The stream has ended: another incarnation may take each id at once."""
        carried, self._carried = self._carried, {}
        for one in carried.values():
            if self._table.remove(one):
                self._table.manager.release_worker(one.worker_id, one.incarnation_id)

    def _register(self, register: pb.Register) -> None:
        registration = decode_registration(register)
        if register.HasField("task_support") or register.attempts_held or register.attempts_unknown:
            raise InvalidMessage("a worker in a report runs no tasks: it needs a stream of its own for them")
        worker_id = register.worker_id
        if self._table.admission is not None:
            self._table.admission.check(self._carrier.certificate, worker_id)
        self._table.manager.register_worker(worker_id, registration)
        own = self._carried.get(worker_id)
        if own is not None and own.error is None:
            self._table.remove(own)
        carried = CarriedWorker(self._carrier, worker_id, registration)
        is_replaced = self._table.add(carried)
        self._carried[worker_id] = carried
        self._record("take_over" if is_replaced else "register", worker_id, f"incarnation {carried.incarnation_id}")

    def _beat(self, carried: CarriedWorker | None, heartbeat: pb.Heartbeat, received_at: float | None) -> None:
        manager = self._table.manager
        try:
            if carried is None or carried.error is not None:
                carried = self._current(heartbeat.worker_id)
            if heartbeat.incarnation_id != carried.registration.incarnation_id:
                raise InvalidMessage(f"this stream speaks for one incarnation of worker {carried.worker_id} only")
            if heartbeat.HasField("task_support"):
                raise InvalidMessage("a worker in a report runs no tasks: it needs a stream of its own for them")
        except FleetPulseError as error:
            self._table.instruments.telemetry.heartbeats_rejected.labels(error.reason).inc()
            raise
        if not manager.knows_worker(carried.worker_id):
            # The worker was forgotten while it was silent.
            manager.register_worker(carried.worker_id, carried.registration)
        manager.process_heartbeat(heartbeat, received_at)

    def _current(self, worker_id: str) -> CarriedWorker:
        """Raises ``WorkerNotCarried``, or what ended the worker's session here."""
        carried = self._carried.get(worker_id)
        if carried is None:
            raise WorkerNotCarried(f"this stream does not carry {worker_id[:128]!a}; register it first")
        if carried.error is not None:
            raise carried.error.with_traceback(None)
        return carried

    def _remove(self, carried: CarriedWorker, reason: str) -> None:
        del self._carried[carried.worker_id]
        if not self._table.remove(carried):
            return
        self._record("goodbye", carried.worker_id, reason)
        try:
            self._table.manager.unregister_worker(carried.worker_id)
        except UnknownWorker:
            # It was forgotten while it was silent.
            return

    def _refuse(self, answer: pb.ReportAnswer, action: str, worker_id: str, error: FleetPulseError) -> None:
        if isinstance(error, MasterStopping):
            raise error
        self._table.instruments.rpc.report_entries_refused.labels(error.reason).inc()
        self._table.record(refusal_entry(action, self._actor(worker_id), worker_id, self._peer, error))
        answer.refused.add(worker_id=worker_id, code=status_of(error).name, message=str(error)[:_LARGEST_MESSAGE])

    def _record(self, action: str, worker_id: str, detail: str) -> None:
        self._table.record(audit_entry(action, self._actor(worker_id), worker_id, self._peer, detail))

    def _actor(self, worker_id: str) -> str:
        """Whom the audit trail names: the holder of the certificate, else the worker if the stream carries it."""
        certificate = self._carrier.certificate
        if certificate is not None:
            return certificate.worker_id
        return worker_id if worker_id in self._carried else ""
