"""The gRPC server: the Fleet service, standard health checking and reflection, on one port and in a thread of its own.

Where there is a CA the port speaks TLS and wants certificates, and a second one serves those that have none yet.

``grpc.aio`` takes two thirds of the processor time and of the memory for each stream that the synchronous server takes
under gevent (docs/performance.md), and none of gevent's patches. The thread only moves bytes: what a message means is
decided on the hub.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from concurrent import futures
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from fleetpulse.master.addresses import Address
from fleetpulse.master.audit.entry import AuditOutcome, Record, unrecorded
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.rpc.audit import entry_of
from fleetpulse.master.rpc.bridge import HubBridge
from fleetpulse.master.rpc.listening import listen
from fleetpulse.master.rpc.session import FIRST_MESSAGE_SECONDS, AttemptReports, SessionTable, StreamSession
from fleetpulse.master.rpc.standard import MAX_REFLECTIONS, MAX_WATCHERS, Health, Reflection
from fleetpulse.master.rpc.stream import Call, RpcStatus, Stream
from fleetpulse.master.rpc.unary import answer_heartbeat, anybody
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb

if TYPE_CHECKING:
    from fleetpulse.master.rpc.tls_ports import TlsPorts

_LOGGER = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Fleet"].full_name

_START_SECONDS = 10.0
_MAX_SINGLE_HEARTBEATS = 1000
"""That are being answered at a time."""

_CALLS_BESIDE = MAX_WATCHERS + MAX_REFLECTIONS + 1000
"""Those of the standard services, and those that are being refused, with a reason and a count."""

_CONNECTIONS_BESIDE_STREAMS = 1000
_STREAMS_OF_A_CONNECTION = 1000
"""A worker needs one; the simulator and a relay have several workers on one connection."""

# Above what the contract accepts, so that a message that is too large is refused by the codec, with a reason and a
# count, and not by grpc's core.
_MAX_RECEIVE_BYTES = 4 * 1024 * 1024

_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    # Of the headers of a call: beyond the first some calls are refused, beyond the second all are.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", _STREAMS_OF_A_CONNECTION),
    # A connection that does not begin to speak HTTP/2, and one on which there is no call.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # A second master on this port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # Workers beat every few seconds: a bandwidth probe with every message costs more than it brings.
    ("grpc.http2.bdp_probe", 0),
    # A worker whose machine lost power sends no FIN; find out, and accept the workers' own pings, which come every
    # 60 s, but not a flood of them.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 5),
)

_WAITING_MESSAGES = 16
"""Of one stream, between grpc's thread and the hub."""

_SLOW_DOWN_SECONDS = 0.005

_END_OF_STREAM: object = grpc.aio.EOF
"""What read() gives at the end, which its stubs leave out."""

T = TypeVar("T")


class RpcServer:
    """Owns grpc's thread and the bridge from it. Built, started and stopped on the hub.

    ``max_streams`` bounds the open streams, registered or not; past it a stream ends with RESOURCE_EXHAUSTED while
    single calls are still served.
    """

    def __init__(
        self,
        address: Address,
        manager: TelemetryManager,
        desk: AttemptReports,
        instruments: Instruments,
        max_streams: int,
        tls: "TlsPorts | None" = None,
        record: Record = unrecorded,
    ) -> None:
        self._address = address
        self._tls = tls
        self._manager = manager
        self._instruments = instruments
        self._max_streams = max_streams
        self._admission = None if tls is None else tls.admission
        self._record = record
        self._sessions = SessionTable(manager, desk, instruments, self._admission, record)
        self._loop = asyncio.new_event_loop()
        self._bridge = HubBridge(self._loop)
        self._thread = threading.Thread(target=self._run_loop, name="grpc", daemon=True)
        self._server: grpc.aio.Server | None = None
        self._health = Health(self._count_soon)
        self._open_streams = 0
        self._open_heartbeats = 0

    # On the hub

    def start(self) -> None:
        """Accept calls. Raises ``ConfigError`` when the port is not to be had."""
        self._thread.start()
        if self._tls is not None:
            self._tls.start(self._instruments, self._bridge, self._record, self._sessions.end_refused)
        self._on_loop(self._serve()).result(_START_SECONDS)

    def health_error(self) -> str | None:
        """Why the server takes no calls, or ``None``."""
        return None if self._server is not None and self._thread.is_alive() else "the gRPC server takes no calls"

    def stop(self, grace_seconds: float = 2.0) -> None:
        """Tell every worker that the master stops, let calls end for ``grace_seconds``, then cancel the rest."""
        self._sessions.end_all()
        if self._tls is not None:
            self._tls.stop()
        if self._thread.is_alive():
            stopped = self._on_loop(self._shut_down(grace_seconds))
            # The hub must go on meanwhile: calls that end report to it.
            gevent.get_hub().threadpool.apply(futures.wait, ([stopped], grace_seconds + 2.0))
            self._loop.call_soon_threadsafe(self._loop.stop)
            gevent.get_hub().threadpool.apply(self._thread.join, (1.0,))
        self._bridge.close()

    def _on_loop(self, coroutine: Coroutine[None, None, T]) -> "futures.Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        self._instruments.rpc.requests.labels(method, code.name).inc()

    def _answer(
        self,
        answer: "asyncio.Future[bytes | RpcStatus]",
        data: bytes,
        received_at: float,
        peer: str,
        certificate: WorkerCertificate | None,
    ) -> None:
        result: bytes | RpcStatus
        admit = anybody if self._admission is None else partial(self._admission.check, certificate)
        holder = "" if certificate is None else certificate.worker_id
        try:
            result = answer_heartbeat(
                self._manager, self._instruments, data, received_at, admit, peer, holder, self._record
            )
        except Exception:
            _LOGGER.exception("a single heartbeat could not be answered")
            result = RpcStatus(grpc.StatusCode.INTERNAL, "the master failed on this heartbeat; its log says why")
        self._loop.call_soon_threadsafe(_resolve, answer, result)

    def _record_full(self, peer: str, why: str) -> None:
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
        self._record(entry_of("connect", "", "", peer, AuditOutcome.REFUSED, status, why))

    # In grpc's thread

    def _count_soon(self, method: str, code: grpc.StatusCode) -> None:
        self._bridge.call(self._count, method, code)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(
            options=(
                *_OPTIONS,
                ("grpc.max_allowed_incoming_connections", self._max_streams + _CONNECTIONS_BESIDE_STREAMS),
            ),
            maximum_concurrent_rpcs=self._max_streams + _MAX_SINGLE_HEARTBEATS + _CALLS_BESIDE,
        )
        server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # it has no types
        add_reflection(Reflection(services, self._count_soon), server)
        listen(server, "GRPC_PORT", self._address, None if self._tls is None else self._tls.credentials())
        if self._tls is not None:
            await self._tls.open_join_port()
        await server.start()
        for service in ("", SERVICE_NAME):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._server = server

    async def _shut_down(self, grace_seconds: float) -> None:
        server, self._server = self._server, None
        await self._health.enter_graceful_shutdown()
        if self._tls is not None:
            await self._tls.close_join_port()
        if server is not None:
            await server.stop(grace_seconds)

    def _handlers(self) -> grpc.GenericRpcHandler:
        # No (de)serializers: the codec does it on the hub, where what is refused is counted.
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Connect": grpc.stream_stream_rpc_method_handler(self._connect),
            "SendHeartbeat": grpc.unary_unary_rpc_method_handler(self._send_heartbeat),
        }
        if self._tls is not None:
            handlers["Renew"] = self._tls.renew_handler()
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def _connect(self, _requests: object, call: Call) -> None:
        self._open_streams += 1
        code = grpc.StatusCode.CANCELLED
        try:
            if self._open_streams > self._max_streams:
                why = f"the master serves at most {self._max_streams} streams"
                self._bridge.call(self._record_full, call.peer(), why)
                await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
            await self._converse(call)
            code = grpc.StatusCode.OK
        except grpc.aio.AbortError:
            code = grpc.StatusCode(call.code())
            raise
        finally:
            self._open_streams -= 1
            self._count_soon("Connect", code)

    async def _converse(self, call: Call) -> None:
        stream = Stream(self._loop, call.peer())
        session = StreamSession(self._sessions, stream, self._certificate_of(call))
        reading = asyncio.ensure_future(self._read(call, session, stream))
        waiting = self._loop.call_later(FIRST_MESSAGE_SECONDS, self._bridge.call, session.expect_registration)
        try:
            await stream.pump(call)
        finally:
            waiting.cancel()
            reading.cancel()
            self._bridge.call(session.close)

    def _certificate_of(self, call: Call) -> WorkerCertificate | None:
        return None if self._tls is None else self._tls.certificate_of(call)

    async def _read(self, call: Call, session: StreamSession, stream: Stream) -> None:
        handed_over = 0
        try:
            while (data := await call.read()) is not _END_OF_STREAM:
                self._bridge.call_soon(session.receive, data, time.monotonic())
                handed_over += 1
                # Who sends faster than the hub can follow is slowed down by HTTP/2's flow control, and no one else is.
                while handed_over - session.received > _WAITING_MESSAGES:  # noqa: ASYNC110 - an event would cost a wake-up
                    await asyncio.sleep(_SLOW_DOWN_SECONDS)
        finally:
            stream.hang_up()

    async def _send_heartbeat(self, data: bytes, call: Call) -> bytes:
        if self._open_heartbeats >= _MAX_SINGLE_HEARTBEATS:
            self._count_soon("SendHeartbeat", grpc.StatusCode.RESOURCE_EXHAUSTED)
            told = f"the master answers at most {_MAX_SINGLE_HEARTBEATS} single heartbeats at a time"
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, told)
        self._open_heartbeats += 1
        try:
            return await self._answered_heartbeat(data, call)
        finally:
            self._open_heartbeats -= 1

    async def _answered_heartbeat(self, data: bytes, call: Call) -> bytes:
        answer: asyncio.Future[bytes | RpcStatus] = self._loop.create_future()
        self._bridge.call(self._answer, answer, data, time.monotonic(), call.peer(), self._certificate_of(call))
        result = await answer
        if isinstance(result, RpcStatus):
            self._count_soon("SendHeartbeat", result.code)
            await call.abort(result.code, result.details)
        self._count_soon("SendHeartbeat", grpc.StatusCode.OK)
        return result


def _resolve(answer: "asyncio.Future[bytes | RpcStatus]", result: bytes | RpcStatus) -> None:
    if not answer.done():
        answer.set_result(result)
