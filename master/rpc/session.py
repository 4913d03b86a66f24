"""One worker's stream as the hub sees it: who speaks, what it says, and why the stream ends."""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

import grpc

from fleetpulse.master.audit.entry import AuditOutcome, Record, unrecorded
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import (
    FleetPulseError,
    InvalidMessage,
    MasterStopping,
    ProtocolViolation,
    RegistrationTimeout,
    StreamSuperseded,
    UnknownWorker,
)
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.rpc.audit import entry_of, told
from fleetpulse.master.rpc.codec import Unreadable, worker_message_from
from fleetpulse.master.rpc.status import status_of
from fleetpulse.master.rpc.stream import RpcStatus
from fleetpulse.master.tasks.messages import WorkerLink
from fleetpulse.master.telemetry.decoding import decode_registration
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 10.0
MASTER_VERSION = version("fleetpulse")

_NO_REFUSALS = (MasterStopping, StreamSuperseded)
"""Ends of streams that are nobody's fault; what took over has an entry of its own."""


class Outgoing(Protocol):
    """What a session needs of its stream; ``rpc.stream.Stream`` is one."""

    peer: str

    def send(self, message: bytes) -> None: ...

    def end(self, ending: RpcStatus) -> None: ...


class AttemptReports(Protocol):
    """What the streams need of the task service; ``tasks.attempt_reports.AttemptReportHandler`` is one."""

    def register(self, register: pb.Register, link: WorkerLink) -> Sequence[pb.KeptAttempt]: ...

    def registered(self, worker_id: str, link: WorkerLink) -> None: ...

    def unregister(self, worker_id: str, link: WorkerLink) -> None: ...

    def update(self, worker_id: str, update: pb.TaskUpdate, link: WorkerLink) -> None: ...

    def log(self, worker_id: str, message: pb.LogChunk, link: WorkerLink) -> None: ...


class SessionTable:
    """The registered sessions by worker id: at most one a worker."""

    def __init__(
        self,
        manager: TelemetryManager,
        desk: AttemptReports,
        instruments: Instruments,
        admission: Admission | None = None,
        record: Record = unrecorded,
    ) -> None:
        """``admission`` says which certificate lets whom in; ``None``: workers show none."""
        self.record = record
        self.manager = manager
        self.desk = desk
        self.admission = admission
        self.instruments = instruments
        self._sessions: dict[str, StreamSession] = {}
        self._stopping = False
        instruments.rpc.sessions.set_function(lambda: len(self._sessions))

    def enter(self, session: "StreamSession") -> bool:
        """The session speaks for its worker from now on; whether an older one of the same worker was ended for it."""
        if self._stopping:
            raise MasterStopping("the master is stopping")
        older = self._sessions.get(session.worker_id)
        self._sessions[session.worker_id] = session
        if older is not None:
            older.end(StreamSuperseded(f"worker {session.worker_id} opened a newer stream"))
        return older is not None

    def leave(self, session: "StreamSession") -> bool:
        """Whether the session was the one that spoke for its worker; it is not any more."""
        if self._sessions.get(session.worker_id) is not session:
            return False
        del self._sessions[session.worker_id]
        return True

    def end_refused(self) -> None:
        """End the sessions whose certificate was revoked, or has expired, and note how old the others' are."""
        if (admission := self.admission) is None:
            return
        for session in list(self._sessions.values()):
            session.end_if_refused()
        shown = [session.certificate for session in self._sessions.values() if session.certificate is not None]
        instruments = self.instruments.certificates
        if shown:
            instruments.life_used.labels("worker").set(max(map(admission.life_used_ratio, shown)))
            instruments.expiry.labels("worker").set(min(certificate.not_after for certificate in shown))
        else:
            instruments.life_used.remove("worker")
            instruments.expiry.remove("worker")

    def end_all(self) -> None:
        """Let no session in any more, and end those that are open with ``MasterStopping``."""
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end(MasterStopping("the master is stopping"))


class StreamSession:
    """What one stream says, in order; and the ``WorkerLink`` of its worker. Belongs to the hub."""

    __slots__ = (
        *("_claimed_id", "_has_ended", "_outgoing", "_registration", "_table"),
        *("certificate", "received", "worker_id"),
    )

    def __init__(self, table: SessionTable, outgoing: Outgoing, certificate: WorkerCertificate | None = None) -> None:
        self.worker_id = self._claimed_id = ""
        self.received = 0
        """Messages that were handled, so that grpc's thread knows how many still wait."""
        self._registration = Registration()
        self._table = table
        self._outgoing = outgoing
        self._has_ended = False
        self.certificate = certificate

    def receive(self, data: bytes, received_at: float | None = None) -> None:
        """A message arrived, on the monotonic clock at ``received_at``. One that breaks a rule ends the stream."""
        self.received += 1
        if self._has_ended:
            return
        try:
            message = worker_message_from(data)
            if isinstance(message, Unreadable):
                raise InvalidMessage(message.why)
            if self.worker_id:
                self._understand(message, received_at)
            else:
                self._register(message)
        except FleetPulseError as error:
            self.end(error)

    def send(self, message: pb.MasterMessage) -> None:
        """Send to the worker; nothing happens when the stream has ended."""
        if not self._has_ended:
            self._outgoing.send(message.SerializeToString())

    def report_violation(self, action: str, target: str, why: str) -> None:
        """Record that the worker did this to an attempt that was never its own. Also after the stream has ended."""
        self._tell(action, AuditOutcome.REFUSED, grpc.StatusCode.PERMISSION_DENIED, why, target)

    def close(self) -> None:
        """The stream is over, whoever ended it."""
        self._has_ended = True
        self._table.desk.unregister(self.worker_id, self)
        if self._table.leave(self):
            self._table.manager.release_worker(self.worker_id, self._registration.incarnation_id)

    def end(self, error: FleetPulseError) -> None:
        """End the stream with this error."""
        if self._has_ended:
            return
        self.close()
        status = status_of(error)
        level = logging.DEBUG if isinstance(error, MasterStopping) else logging.INFO
        _LOGGER.log(level, "the stream of %s (%s) ends with %s: %s", self.worker_id or "nobody", self._outgoing.peer,
                    status.name, error)  # fmt: skip
        self._table.instruments.rpc.sessions_refused.labels(error.reason).inc()
        if not isinstance(error, _NO_REFUSALS):
            self._tell("report" if self.worker_id else "register", AuditOutcome.REFUSED, status, told(error))
        self._outgoing.end(RpcStatus(status, str(error)))

    def end_if_refused(self) -> None:
        """End the stream if its certificate is good for nothing any more."""
        admission, certificate = self._table.admission, self.certificate
        if admission is None or certificate is None:
            return
        if (refusal := admission.refusal(certificate)) is not None:
            self.end(refusal)

    def expect_registration(self) -> None:
        """The time for the first message is over."""
        if not self.worker_id:
            self.end(
                RegistrationTimeout(
                    f"nobody registered on this stream within {FIRST_MESSAGE_SECONDS:.0f} s; send register first"
                )
            )

    def _register(self, first: pb.WorkerMessage) -> None:
        kind = first.WhichOneof("message")
        if kind != "register":
            raise ProtocolViolation(f"the first message must be register, not {kind or 'empty'}")
        self._claimed_id = worker_id = first.register.worker_id
        registration = decode_registration(first.register)
        if self._table.admission is not None:
            self._table.admission.check(self.certificate, worker_id)
        self._table.manager.register_worker(worker_id, registration)
        self.worker_id, self._registration = worker_id, registration
        action = "take_over" if self._table.enter(self) else "register"
        self._tell(action, detail=f"incarnation {registration.incarnation_id}")
        kept = self._table.desk.register(first.register, self)
        self.send(pb.MasterMessage(registered=_registered(self._table.manager.lease_config, kept)))
        self._table.desk.registered(worker_id, self)

    def _understand(self, message: pb.WorkerMessage, received_at: float | None) -> None:
        kind = message.WhichOneof("message")
        if kind == "heartbeat":
            self._beat(message.heartbeat, received_at)
        elif kind == "task_update":
            self._table.desk.update(self.worker_id, message.task_update, self)
        elif kind == "log_chunk":
            self._table.desk.log(self.worker_id, message.log_chunk, self)
        elif kind == "goodbye":
            self._say_goodbye(message.goodbye)
        elif kind == "register":
            raise ProtocolViolation("register was sent twice on one stream")
        # What this master does not know comes from a newer worker, and is none of its business.

    def _beat(self, heartbeat: pb.Heartbeat, received_at: float | None) -> None:
        if heartbeat.worker_id != self.worker_id or heartbeat.incarnation_id != self._registration.incarnation_id:
            raise InvalidMessage(f"this stream speaks for worker {self.worker_id} only, and for its incarnation")
        manager = self._table.manager
        if not manager.knows_worker(self.worker_id):
            # Forgotten while it was silent: it is back with all that it said of itself.
            manager.register_worker(self.worker_id, self._registration)
        manager.process_heartbeat(heartbeat, received_at)

    def _say_goodbye(self, goodbye: pb.Goodbye) -> None:
        self._has_ended = True
        self._table.desk.unregister(self.worker_id, self)
        if not self._table.leave(self):
            return
        self._tell("goodbye", detail=goodbye.reason)
        _LOGGER.info("worker %s said goodbye: %s", self.worker_id, ascii(goodbye.reason[:200]))
        try:
            self._table.manager.unregister_worker(self.worker_id)
        except UnknownWorker:
            _LOGGER.debug("worker %s was forgotten before it said goodbye", self.worker_id)

    def _tell(
        self,
        action: str,
        outcome: AuditOutcome = AuditOutcome.OK,
        status: grpc.StatusCode = grpc.StatusCode.OK,
        detail: str = "",
        target: str = "",
    ) -> None:
        holder = "" if self.certificate is None else self.certificate.worker_id
        entry = entry_of(
            action, self.worker_id or holder, target or self._claimed_id, self._outgoing.peer, outcome, status, detail
        )
        self._table.record(entry)


def _registered(terms: LeaseConfig, kept: Sequence[pb.KeptAttempt]) -> pb.Registered:
    return pb.Registered(
        heartbeat_interval_seconds=terms.heartbeat_interval_seconds,
        inactivity_timeout_seconds=terms.inactivity_timeout_seconds,
        master_version=MASTER_VERSION,
        attempts_to_keep=kept,
    )
