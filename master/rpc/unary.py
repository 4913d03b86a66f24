"""``SendHeartbeat`` as the hub sees it: one heartbeat, one answer."""

from collections.abc import Callable

from fleetpulse.master.audit.entry import AuditOutcome, Record, unrecorded
from fleetpulse.master.errors import CertificateRefused, FleetPulseError, InvalidMessage
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.rpc.audit import entry_of, told
from fleetpulse.master.rpc.codec import Unreadable, heartbeat_from
from fleetpulse.master.rpc.status import status_of
from fleetpulse.master.rpc.stream import RpcStatus
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb


def anybody(_worker_id: str) -> None:
    """Without TLS nobody is asked who it is."""


def answer_heartbeat(
    manager: TelemetryManager,
    instruments: Instruments,
    data: bytes,
    received_at: float | None = None,
    admit: Callable[[str], None] = anybody,
    peer: str = "",
    holder: str = "",
    record: Record = unrecorded,
) -> bytes | RpcStatus:
    """The ``HeartbeatAck``, serialized, or how the call ends. A refusal is recorded, and a worker that is new.

    ``admit`` raises for who may not speak as this worker; ``holder`` is the worker whose certificate was shown.
    """
    heartbeat = heartbeat_from(data)
    worker_id = "" if isinstance(heartbeat, Unreadable) else heartbeat.worker_id
    is_new = not manager.knows_worker(worker_id)
    try:
        if isinstance(heartbeat, Unreadable):
            instruments.telemetry.heartbeats_rejected.labels(InvalidMessage.reason).inc()
            raise InvalidMessage(heartbeat.why)
        try:
            admit(heartbeat.worker_id)
        except CertificateRefused as error:
            instruments.telemetry.heartbeats_rejected.labels(error.reason).inc()
            raise
        manager.process_heartbeat(heartbeat, received_at)
    except FleetPulseError as error:
        status = status_of(error)
        record(entry_of("send_heartbeat", holder, worker_id, peer, AuditOutcome.REFUSED, status, told(error)))
        return RpcStatus(status, str(error))
    if is_new:
        record(entry_of("register", worker_id, worker_id, peer, detail="by a single heartbeat"))
    return pb.HeartbeatAck(
        heartbeat_interval_seconds=manager.lease_config.heartbeat_interval_seconds,
        inactivity_timeout_seconds=manager.lease_config.inactivity_timeout_seconds,
    ).SerializeToString()
