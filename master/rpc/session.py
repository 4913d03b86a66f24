"""Messages of workers on the hub: sessions on streams, and single heartbeats."""

import logging
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version

import grpc

from fleetpulse.master.addresses import host_of_peer
from fleetpulse.master.audit.entries import AuditOutcome, Record, unrecorded
from fleetpulse.master.errors import (
    CertificateRefused,
    FleetPulseError,
    InvalidMessage,
    MasterStopping,
    ProtocolViolation,
    RegistrationTimeout,
    StreamSuperseded,
    UnknownWorker,
)
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.rpc.registrations import RegistrationLine
from fleetpulse.master.rpc.reports import CarriedWorker, ReportHandler
from fleetpulse.master.rpc.status import RpcStatus, audit_entry, refusal_entry, status_of
from fleetpulse.master.rpc.stream import HubBridge, Received, Stream, decode
from fleetpulse.master.tasks.attempt_reports import AttemptReportHandler
from fleetpulse.master.telemetry.decoding import decode_registration
from fleetpulse.master.telemetry.leases import Receipts
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 60.0
"""As long as a worker waits for its answer. When a whole fleet comes back, the first message may come long after the
stream: grpc's core opens it before the worker's own code writes on it.
"""

MASTER_VERSION = version("fleetpulse")

_NOT_AUDITED = (MasterStopping, StreamSuperseded)
"""Ends that are no refusals; a takeover has an entry of its own."""


class SessionTable:
    """The registered sessions by worker id, at most one per worker; those of an agent share a stream.

    Answers single heartbeats too.
    """

    def __init__(
        self,
        manager: TelemetryManager,
        reports: AttemptReportHandler,
        instruments: Instruments,
        admission: Admission | None = None,
        record: Record = unrecorded,
    ) -> None:
        """``admission`` checks certificates; ``None``: workers have none."""
        self.record = record
        self.manager = manager
        self.reports = reports
        self.admission = admission
        self.instruments = instruments
        self.registrations = RegistrationLine()
        self._sessions: dict[str, StreamSession | CarriedWorker] = {}
        self._stopping = False
        instruments.rpc.sessions.set_function(lambda: len(self._sessions))

    def answer_heartbeat(
        self,
        data: bytes,
        received_at: float | None = None,
        peer: str = "",
        certificate: WorkerCertificate | None = None,
    ) -> bytes | RpcStatus:
        """Returns the serialized ``HeartbeatAck``, or how the call ends. Records refusals and new workers."""
        worker_id = ""
        try:
            try:
                heartbeat = decode(pb.Heartbeat, data)
                worker_id = heartbeat.worker_id
                if self.admission is not None:
                    self.admission.check(certificate, worker_id)
            except (InvalidMessage, CertificateRefused) as error:
                self.instruments.telemetry.heartbeats_rejected.labels(error.reason).inc()
                raise
            is_new = not self.manager.knows_worker(worker_id)
            self.manager.process_heartbeat(heartbeat, received_at)
        except FleetPulseError as error:
            holder = "" if certificate is None else certificate.worker_id
            self.record(refusal_entry("send_heartbeat", holder, worker_id, peer, error))
            return RpcStatus(status_of(error), str(error))
        if is_new:
            self.record(audit_entry("register", worker_id, worker_id, peer, "by a single heartbeat"))
        lease = self.manager.lease_config
        return pb.HeartbeatAck(
            heartbeat_interval_seconds=lease.heartbeat_interval_seconds,
            inactivity_timeout_seconds=lease.inactivity_timeout_seconds,
        ).SerializeToString()

    def add(self, session: "StreamSession | CarriedWorker") -> bool:
        """Makes this the session of its worker; returns whether it replaced an older one. Raises ``MasterStopping``."""
        if self._stopping:
            raise MasterStopping("the master is stopping")
        older = self._sessions.get(session.worker_id)
        self._sessions[session.worker_id] = session
        if older is not None:
            older.end(StreamSuperseded(f"worker {session.worker_id} opened a newer stream"))
        return older is not None

    def registered(self, kept: Sequence[pb.KeptAttempt], worker_id: str = "") -> pb.Registered:
        """Returns the answer to a registration, of one worker or of an agent for many."""
        lease = self.manager.lease_config
        return pb.Registered(
            heartbeat_interval_seconds=lease.heartbeat_interval_seconds,
            inactivity_timeout_seconds=lease.inactivity_timeout_seconds,
            master_version=MASTER_VERSION,
            attempts_to_keep=kept,
            reconnect_spread_seconds=self.registrations.spread_seconds(
                len(self._sessions), lease.inactivity_timeout_seconds
            ),
            draining=bool(worker_id) and self.manager.get_worker_telemetry(worker_id).is_drained,
        )

    def last_heard(self, worker_id: str, incarnation_id: str) -> float | None:
        """Returns when bytes last arrived on the incarnation's stream (monotonic), handled or not."""
        session = self._sessions.get(worker_id)
        return None if session is None or session.incarnation_id != incarnation_id else session.heard_at

    def remove(self, session: "StreamSession | CarriedWorker") -> bool:
        """Removes the session; returns whether it was the session of its worker."""
        if self._sessions.get(session.worker_id) is not session:
            return False
        del self._sessions[session.worker_id]
        return True

    def end_refused(self) -> None:
        """Ends sessions with revoked or expired certificates, and updates the gauges of the others' age."""
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
        """Ends all sessions and refuses new ones with ``MasterStopping``."""
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end(MasterStopping("the master is stopping"))


class StreamReceipts(Receipts):
    """What grpc's thread has received, and whom it has turned away unread."""

    def __init__(self, bridge: HubBridge, sessions: SessionTable, clock: Callable[[], float]) -> None:
        self._bridge = bridge
        self._sessions = sessions
        self._clock = clock
        self._turned_away_until = -math.inf

    def turn_away(self, delay_seconds: float) -> None:
        """Somebody knocked and was told to come back then: nobody without a stream is silent before. Any thread."""
        self._turned_away_until = max(self._turned_away_until, self._clock() + delay_seconds)

    def heard_until(self, now: float) -> float:
        """See ``HubBridge.heard_until``."""
        return self._bridge.heard_until(now)

    def last_heard(self, worker_id: str, incarnation_id: str) -> float | None:
        """See ``SessionTable.last_heard``; of those without a stream, when they may have been turned away."""
        heard_at = self._sessions.last_heard(worker_id, incarnation_id)
        return min(self._clock(), self._turned_away_until) if heard_at is None else heard_at


class StreamSession:
    """Handles the messages of one stream in order; also the ``WorkerLink`` of its worker. Belongs to the hub."""

    __slots__ = (
        *("_claimed_id", "_has_ended", "_registration", "_reports", "_stream", "_table"),
        *("certificate", "worker_id"),
    )

    def __init__(self, table: SessionTable, stream: Stream, certificate: WorkerCertificate | None = None) -> None:
        self.worker_id = self._claimed_id = ""
        self._registration = Registration()
        self._table = table
        self._stream = stream
        self._has_ended = False
        self._reports: ReportHandler | None = None
        self.certificate = certificate

    @property
    def heard_at(self) -> float | None:
        """When bytes last arrived on the stream (monotonic)."""
        return self._stream.heard_at

    @property
    def incarnation_id(self) -> str:
        """The registered one; empty before."""
        return self._registration.incarnation_id

    def process(self) -> None:
        """Handles everything that has arrived. A violation ends the stream."""
        received = self._stream.take()
        if received.superseded:
            self._table.instruments.telemetry.heartbeats_superseded.inc(received.superseded)
        failures: list[Exception] = []
        for data in received.messages:
            if self._has_ended:
                break
            is_first = not self.worker_id and self._reports is None
            try:
                message = decode(pb.WorkerMessage, data)
                if self.worker_id:
                    self._dispatch(message, received)
                elif self._reports is not None:
                    self._handle_report(message)
                    # The next one waits until others have had their turn: a report may take 10 ms.
                    give_way()
                else:
                    self._register(message)
            except FleetPulseError as error:
                self.end(error)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
            finally:
                if is_first:
                    self._table.registrations.leave()
        if failures:
            # A fault of the master on one message does not lose those that came with it.
            raise ExceptionGroup(f"messages of {self.worker_id or self._stream.peer} could not be handled", failures)

    @property
    def waiting_since(self) -> float | None:
        """When the last of the messages arrived that wait to be handled (monotonic); ``None`` when none waits."""
        return self._stream.heard_at if self._stream.waiting else None

    def send(self, message: pb.MasterMessage) -> None:
        """Sends to the worker; does nothing when the stream has ended."""
        if not self._has_ended:
            self._stream.send(message.SerializeToString())

    def report_violation(self, action: str, target: str, reason: str) -> None:
        """Records that the worker was refused this on an attempt that was never its own. Works after the end, too."""
        self._table.record(
            audit_entry(
                action, self._actor(), target, self._stream.peer, reason,
                AuditOutcome.REFUSED, grpc.StatusCode.PERMISSION_DENIED,
            )
        )  # fmt: skip

    def close(self) -> None:
        """The stream is over, whoever ended it. The hub has handled all that arrived before."""
        self._has_ended = True
        self._table.reports.unregister(self.worker_id, self)
        if self._table.remove(self):
            self._table.manager.release_worker(self.worker_id, self._registration.incarnation_id)
        if self._reports is not None:
            self._reports.release_all()

    def end(self, error: FleetPulseError) -> None:
        """Ends the stream with this error."""
        if self._has_ended:
            return
        self.close()
        status = status_of(error)
        level = logging.DEBUG if isinstance(error, MasterStopping) else logging.INFO
        _LOGGER.log(level, "the stream of %s (%s) ends with %s: %s", self.worker_id or "nobody", self._stream.peer,
                    status.name, error)  # fmt: skip
        self._table.instruments.rpc.sessions_refused.labels(error.reason).inc()
        if not isinstance(error, _NOT_AUDITED):
            action = "report" if self.worker_id else "register"
            self._table.record(refusal_entry(action, self._actor(), self._claimed_id, self._stream.peer, error))
        self._stream.end(RpcStatus(status, str(error)))

    def end_if_refused(self) -> None:
        """Ends the stream if its certificate was revoked or has expired."""
        admission, certificate = self._table.admission, self.certificate
        if admission is None or certificate is None:
            return
        if (refusal := admission.refusal(certificate)) is not None:
            self.end(refusal)

    def expect_registration(self) -> None:
        """Ends the stream if nothing has arrived on it. Called when the time for the first message is over.

        What has arrived is handled, however late, and registers the worker or ends the stream.
        """
        if self.heard_at is None:
            self.end(
                RegistrationTimeout(
                    f"nobody registered on this stream within {FIRST_MESSAGE_SECONDS:.0f} s; send register first"
                )
            )

    def _register(self, first: pb.WorkerMessage) -> None:
        kind = first.WhichOneof("message")
        if kind == "report":
            self._reports = ReportHandler(self._table, self, self._stream.peer)
            self._handle_report(first)
            return
        if kind != "register":
            raise ProtocolViolation(f"the first message must be register or report, not {kind or 'empty'}")
        self._claimed_id = worker_id = first.register.worker_id
        registration = decode_registration(first.register, host_of_peer(self._stream.peer))
        if self._table.admission is not None:
            self._table.admission.check(self.certificate, worker_id)
        self._table.manager.register_worker(worker_id, registration)
        self.worker_id, self._registration = worker_id, registration
        action = "take_over" if self._table.add(self) else "register"
        self._record(action, f"incarnation {registration.incarnation_id}")
        kept = self._table.reports.register(first.register, self)
        self.send(pb.MasterMessage(registered=self._table.registered(kept, worker_id)))
        self._table.reports.registered(worker_id, self)

    def _dispatch(self, message: pb.WorkerMessage, received: Received) -> None:
        kind = message.WhichOneof("message")
        if kind == "heartbeat":
            self._handle_heartbeat(message.heartbeat, received)
        elif kind == "task_update":
            self._table.reports.update(self.worker_id, message.task_update, self)
        elif kind == "log_chunk":
            self._table.reports.log(self.worker_id, message.log_chunk, self)
        elif kind == "goodbye":
            self._handle_goodbye(message.goodbye)
        elif kind == "register":
            raise ProtocolViolation("register was sent twice on one stream")
        elif kind == "report":
            raise ProtocolViolation("a stream that began with register carries no report; open another one for it")
        # An unknown kind comes from a newer worker and is ignored.

    def _handle_heartbeat(self, heartbeat: pb.Heartbeat, received: Received) -> None:
        if heartbeat.worker_id != self.worker_id or heartbeat.incarnation_id != self._registration.incarnation_id:
            raise InvalidMessage(f"this stream speaks for worker {self.worker_id} only, and for its incarnation")
        manager = self._table.manager
        if not manager.knows_worker(self.worker_id):
            # The worker was forgotten while it was silent.
            manager.register_worker(self.worker_id, self._registration)
        manager.process_heartbeat(heartbeat, received.heartbeat_at, received.superseded)

    def _handle_report(self, message: pb.WorkerMessage) -> None:
        """A message of an agent that speaks for many workers."""
        assert self._reports is not None  # nosec B101 # for the type checker
        kind = message.WhichOneof("message")
        if kind == "report":
            lease = self._table.registered(())
            answer = self._reports.process(message.report, self.heard_at, lease)
            self.send(pb.MasterMessage(report_answer=answer))
        elif kind == "goodbye":
            self._reports.remove_all(message.goodbye.reason)
        elif kind is not None:
            raise ProtocolViolation(f"a stream that began with report carries no {kind}")
        # An unknown kind comes from a newer agent and is ignored.

    def _handle_goodbye(self, goodbye: pb.Goodbye) -> None:
        self._has_ended = True
        self._table.reports.unregister(self.worker_id, self)
        if not self._table.remove(self):
            return
        self._record("goodbye", goodbye.reason)
        _LOGGER.info("worker %s said goodbye: %s", self.worker_id, ascii(goodbye.reason[:200]))
        try:
            self._table.manager.unregister_worker(self.worker_id)
        except UnknownWorker:
            _LOGGER.debug("worker %s was forgotten before it said goodbye", self.worker_id)

    def _actor(self) -> str:
        return self.worker_id or ("" if self.certificate is None else self.certificate.worker_id)

    def _record(self, action: str, detail: str) -> None:
        self._table.record(audit_entry(action, self._actor(), self._claimed_id, self._stream.peer, detail))
