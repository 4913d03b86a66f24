"""The Fleet service: what each RPC does, and how its errors reach the caller."""

import logging
from collections.abc import Iterator
from typing import NoReturn

import grpc

from master.errors import FleetFull, FleetPulseError, InvalidMessage, MasterStopping
from master.instruments import Instruments
from master.rpc import codec
from master.rpc.codec import Unreadable
from master.rpc.session import Session, SessionTable
from master.rpc.status import status_of
from master.telemetry.manager import TelemetryManager
from proto import fleetpulse_pb2 as pb

_LOGGER = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Fleet"].full_name


class FleetServicer:
    """Serves ``fleetpulse.v1.Fleet``. ``max_streams`` bounds the open streams, registered or not."""

    def __init__(self, manager: TelemetryManager, instruments: Instruments, max_streams: int) -> None:
        self._manager = manager
        self._instruments = instruments
        self._max_streams = max_streams
        self._open_streams = 0
        self.sessions = SessionTable()
        instruments.sessions.set_function(lambda: len(self.sessions))

    def connect(
        self, requests: Iterator[pb.WorkerMessage | Unreadable], context: grpc.ServicerContext
    ) -> Iterator[pb.MasterMessage]:
        """Handler of ``Connect``."""
        self._open_streams += 1
        try:
            if self._open_streams > self._max_streams:
                raise FleetFull(f"the master serves at most {self._max_streams} streams at a time")
            yield from Session(self._manager, self.sessions).messages(requests)
        except FleetPulseError as error:
            self._instruments.sessions_refused.labels(error.reason).inc()
            self._refuse("Connect", context, error)
        else:
            self._count("Connect", "OK" if context.is_active() else "CANCELLED")
        finally:
            self._open_streams -= 1

    def send_heartbeat(self, heartbeat: pb.Heartbeat | Unreadable, context: grpc.ServicerContext) -> pb.HeartbeatAck:
        """Handler of ``SendHeartbeat``."""
        try:
            if isinstance(heartbeat, Unreadable):
                self._instruments.heartbeats_rejected.labels(InvalidMessage.reason).inc()
                raise InvalidMessage(heartbeat.why)
            self._manager.process_heartbeat(heartbeat)
        except FleetPulseError as error:
            self._refuse("SendHeartbeat", context, error)
        self._count("SendHeartbeat", "OK")
        return pb.HeartbeatAck(
            heartbeat_interval_seconds=self._manager.terms.heartbeat_interval_seconds,
            inactivity_timeout_seconds=self._manager.terms.inactivity_timeout_seconds,
        )

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers for ``grpc.Server.add_generic_rpc_handlers``, with this package's codec."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Connect": grpc.stream_stream_rpc_method_handler(
                    self.connect,
                    request_deserializer=codec.worker_message_from,
                    response_serializer=pb.MasterMessage.SerializeToString,
                ),
                "SendHeartbeat": grpc.unary_unary_rpc_method_handler(
                    self.send_heartbeat,
                    request_deserializer=codec.heartbeat_from,
                    response_serializer=pb.HeartbeatAck.SerializeToString,
                ),
            },
        )

    def _refuse(self, method: str, context: grpc.ServicerContext, error: FleetPulseError) -> NoReturn:
        status = status_of(error)
        level = logging.DEBUG if isinstance(error, MasterStopping) else logging.INFO
        _LOGGER.log(level, "%s from %s ends with %s: %s", method, context.peer(), status.name, error)
        self._count(method, status.name)
        context.abort(status, str(error))

    def _count(self, method: str, code: str) -> None:
        self._instruments.grpc_requests.labels(method, code).inc()
