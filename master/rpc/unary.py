"""``SendHeartbeat`` as the hub sees it: one heartbeat, one answer."""

from master.errors import FleetPulseError, InvalidMessage
from master.instruments import Instruments
from master.rpc.codec import Unreadable, heartbeat_from
from master.rpc.status import status_of
from master.rpc.stream import Ending
from master.telemetry.manager import TelemetryManager
from proto import fleetpulse_pb2 as pb


def answer_heartbeat(
    manager: TelemetryManager, instruments: Instruments, data: bytes, received_at: float | None = None
) -> bytes | Ending:
    """The ``HeartbeatAck``, serialized, or how the call ends."""
    heartbeat = heartbeat_from(data)
    try:
        if isinstance(heartbeat, Unreadable):
            instruments.heartbeats_rejected.labels(InvalidMessage.reason).inc()
            raise InvalidMessage(heartbeat.why)
        manager.process_heartbeat(heartbeat, received_at)
    except FleetPulseError as error:
        return Ending(status_of(error), str(error))
    return pb.HeartbeatAck(
        heartbeat_interval_seconds=manager.terms.heartbeat_interval_seconds,
        inactivity_timeout_seconds=manager.terms.inactivity_timeout_seconds,
    ).SerializeToString()
