"""``SendHeartbeat`` as the hub sees it: one heartbeat, one answer."""

from collections.abc import Callable

from master.errors import CertificateRefused, FleetPulseError, InvalidMessage
from master.instruments import Instruments
from master.rpc.codec import Unreadable, heartbeat_from
from master.rpc.status import status_of
from master.rpc.stream import Ending
from master.telemetry.manager import TelemetryManager
from proto import fleetpulse_pb2 as pb


def anybody(_worker_id: str) -> None:
    """Without TLS nobody is asked who it is."""


def answer_heartbeat(
    manager: TelemetryManager,
    instruments: Instruments,
    data: bytes,
    received_at: float | None = None,
    admit: Callable[[str], None] = anybody,
) -> bytes | Ending:
    """The ``HeartbeatAck``, serialized, or how the call ends. ``admit`` raises for who may not speak as this worker."""
    heartbeat = heartbeat_from(data)
    try:
        if isinstance(heartbeat, Unreadable):
            instruments.heartbeats_rejected.labels(InvalidMessage.reason).inc()
            raise InvalidMessage(heartbeat.why)
        try:
            admit(heartbeat.worker_id)
        except CertificateRefused as error:
            instruments.heartbeats_rejected.labels(error.reason).inc()
            raise
        manager.process_heartbeat(heartbeat, received_at)
    except FleetPulseError as error:
        return Ending(status_of(error), str(error))
    return pb.HeartbeatAck(
        heartbeat_interval_seconds=manager.terms.heartbeat_interval_seconds,
        inactivity_timeout_seconds=manager.terms.inactivity_timeout_seconds,
    ).SerializeToString()
