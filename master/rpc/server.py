"""The gRPC server: the Fleet service, health checking and reflection, in a thread of its own.

With a CA the port requires TLS and certificates, and a second port serves clients that have none yet.

``grpc.aio`` takes two thirds of the processor time and of the memory per stream that the synchronous server takes
under gevent (docs/performance.md), and none of gevent's patches. The thread only moves bytes; messages are handled on
the hub.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from fleetpulse.master.addresses import Address, listen_addresses
from fleetpulse.master.audit.entries import AuditOutcome, Record, unrecorded
from fleetpulse.master.config import TlsConfig
from fleetpulse.master.errors import ConfigError, FleetPulseError
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.rpc.peers import LocalWorkers
from fleetpulse.master.rpc.session import FIRST_MESSAGE_SECONDS, SessionTable, StreamReceipts, StreamSession
from fleetpulse.master.rpc.standard import MAX_REFLECTIONS, MAX_WATCHERS, LimitedHealth, LimitedReflection
from fleetpulse.master.rpc.status import RpcStatus, audit_entry, refusal_entry, status_of
from fleetpulse.master.rpc.stream import HubBridge, RpcCall, Stream, server_options
from fleetpulse.master.tasks.attempt_reports import AttemptReportHandler
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb

if TYPE_CHECKING:
    from fleetpulse.master.pki.authority import Authority
    from fleetpulse.master.rpc.tls import TlsPorts

_LOGGER = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Fleet"].full_name

_START_SECONDS = 10.0
_MAX_SINGLE_HEARTBEATS = 10_000
"""That wait for their answers at a time; a bound for the memory."""

_MAX_BACKLOG_SECONDS = 5.0
"""Age of the oldest message that waits, above which single heartbeats are turned away, and the master is degraded."""

_SPARE_CALLS = MAX_WATCHERS + MAX_REFLECTIONS + 1000
"""Calls of the standard services, and calls that are being refused with a reason and a count."""

_MAX_WAITING_MESSAGES = 16
"""Per stream, between grpc's thread and the hub."""

_SLOW_DOWN_SECONDS = 0.005
_MAX_SLOW_DOWN_SECONDS = 0.1
_MAX_HEARTBEAT_DELAY_SECONDS = 30.0
"""That a single heartbeat is asked to wait."""

_END_OF_STREAM: object = grpc.aio.EOF
"""What read() returns at the end, which its stubs leave out."""

T = TypeVar("T")


class RpcServer:
    """Owns grpc's thread and the bridge from it. Built, started and stopped on the hub."""

    def __init__(
        self,
        address: Address,
        manager: TelemetryManager,
        reports: AttemptReportHandler,
        instruments: Instruments,
        max_streams: int,
        record: Record = unrecorded,
        authority: "Authority | None" = None,
        tls: TlsConfig | None = None,
    ) -> None:
        """``max_streams`` bounds the open streams, registered or not; single calls are served beyond it.

        ``authority`` and ``tls`` are given together, for a master with a CA.
        """
        self.local_workers: LocalWorkers | None = None
        """Says who may call a master without a CA; ``None``: everybody. To be set before the start."""

        self.first_message_seconds = FIRST_MESSAGE_SECONDS
        """How long a stream may be silent at first, unless the master is behind."""

        self._address = address
        self._instruments = instruments
        self._max_streams = max_streams
        self._record = record
        admission = None if authority is None else authority.admission
        self._sessions = SessionTable(manager, reports, instruments, admission, record)
        self._loop = asyncio.new_event_loop()
        self._bridge = HubBridge(self._loop)
        self.registrations = self._sessions.registrations
        """The line of workers that wait to be registered."""

        self._receipts = StreamReceipts(self._bridge, self._sessions, time.monotonic)
        manager.set_receipts(self._receipts)
        instruments.rpc.backlog_age.set_function(self._bridge.backlog_seconds)
        self._thread = threading.Thread(target=self._run_loop, name="grpc", daemon=True)
        self._tls: TlsPorts | None = None
        if authority is not None and tls is not None:
            from fleetpulse.master.rpc import tls as ports  # noqa: PLC0415 - heavy, and mostly not needed

            end_refused = self._sessions.end_refused
            self._tls = ports.TlsPorts(authority, tls, instruments, self._bridge, end_refused, record)
        self._servers: list[grpc.aio.Server] = []
        self._health = LimitedHealth(self._count)
        self._open_streams = 0
        self._single_heartbeats = 0

    # On the hub

    def start(self) -> None:
        """Accepts calls. Raises ``ConfigError`` when a port is not available."""
        self._thread.start()
        if self._tls is not None:
            self._tls.start()
        self._on_loop(self._serve()).result(_START_SECONDS)

    def overload(self) -> str | None:
        """Returns how far the master is behind its workers, or ``None`` if it is not."""
        age = self._bridge.backlog_seconds()
        if age <= _MAX_BACKLOG_SECONDS:
            return None
        return f"overloaded: the oldest message of a worker has waited for {age:.0f} s"

    def health_error(self) -> str | None:
        """Returns why the server takes no calls, or ``None``."""
        return None if self._servers and self._thread.is_alive() else "the gRPC server takes no calls"

    def stop(self, grace_seconds: float = 2.0) -> None:
        """Tells every worker that the master stops, lets calls end for ``grace_seconds``, then cancels the rest."""
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

    def _answer(
        self,
        answer: "asyncio.Future[bytes | RpcStatus]",
        data: bytes,
        received_at: float,
        peer: str,
        certificate: WorkerCertificate | None,
    ) -> None:
        result: bytes | RpcStatus
        try:
            result = self._sessions.answer_heartbeat(data, received_at, peer, certificate)
        except Exception:
            _LOGGER.exception("a single heartbeat could not be answered")
            result = RpcStatus(grpc.StatusCode.INTERNAL, "the master failed on this heartbeat; its log says why")
        self._loop.call_soon_threadsafe(_resolve, answer, result)

    def _record_stranger(self, peer: str, action: str, error: FleetPulseError) -> None:
        self._instruments.rpc.sessions_refused.labels(error.reason).inc()
        self._record(refusal_entry(action, "", "", peer, error))

    def _record_full(self, peer: str, reason: str) -> None:
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
        self._record(audit_entry("connect", "", "", peer, reason, AuditOutcome.REFUSED, status))

    # In grpc's thread

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        self._instruments.rpc.requests.labels(method, code.name).inc()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._bridge.listen)
        self._loop.run_forever()
        self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(
            options=server_options(self._max_streams, has_tls=self._tls is not None),
            maximum_concurrent_rpcs=self._max_streams + _MAX_SINGLE_HEARTBEATS + _SPARE_CALLS,
        )
        server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # it has no types
        add_reflection(LimitedReflection(services, self._count), server)
        servers = [server]
        if self._tls is None:
            _listen(server, "GRPC_PORT", self._address)
        else:
            _listen(server, "GRPC_PORT", self._address, partial(self._tls.credentials, for_workers=True))
            servers.append(self._tls.join_server())
            _listen(servers[1], "JOIN_PORT", self._tls.join_address, partial(self._tls.credentials, for_workers=False))
        for one in reversed(servers):
            await one.start()
        for service in ("", SERVICE_NAME):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._servers = servers

    async def _shut_down(self, grace_seconds: float) -> None:
        servers, self._servers = self._servers, []
        await self._health.enter_graceful_shutdown()
        for join_server in servers[1:]:
            await join_server.stop(0.0)
        for server in servers[:1]:
            await server.stop(grace_seconds)

    def _handlers(self) -> grpc.GenericRpcHandler:
        # No (de)serializers: messages are decoded on the hub, where refusals are counted.
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Connect": grpc.stream_stream_rpc_method_handler(self._connect),
            "SendHeartbeat": grpc.unary_unary_rpc_method_handler(self._send_heartbeat),
        }
        if self._tls is not None:
            handlers["Renew"] = self._tls.renew_handler()
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def _connect(self, _requests: object, call: RpcCall) -> None:
        self._open_streams += 1
        code = grpc.StatusCode.CANCELLED
        try:
            if self._open_streams > self._max_streams:
                reason = f"the master serves at most {self._max_streams} streams"
                self._bridge.call(self._record_full, call.peer(), reason)
                await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            await self._refuse_stranger(call, "register")
            if self.registrations.is_full:
                await self._turn_away(call, self._busy())
            await self._run_session(call)
            code = grpc.StatusCode.OK
        except grpc.aio.AbortError:
            code = grpc.StatusCode(call.code())
            raise
        finally:
            self._open_streams -= 1
            self._count("Connect", code)

    async def _refuse_stranger(self, call: RpcCall, action: str) -> None:
        """Ends a call without a certificate that is of another user of this machine."""
        if self.local_workers is None or (error := await self.local_workers.refusal(call.peer())) is None:
            return
        self._bridge.call(self._record_stranger, call.peer(), action, error)
        await call.abort(status_of(error), str(error))

    def _busy(self) -> RpcStatus:
        """Returns how a stream ends whose worker shall come later."""
        delay_seconds = self.registrations.next_turn()
        self._receipts.turn_away(delay_seconds)
        self._instruments.rpc.sessions_refused.labels("master_busy").inc()
        return RpcStatus(
            grpc.StatusCode.UNAVAILABLE, f"many workers register now; come back in {delay_seconds:.1f} s", delay_seconds
        )

    @staticmethod
    async def _turn_away(call: RpcCall, status: RpcStatus) -> None:
        await call.abort(status.code, status.details, status.trailing_metadata)

    async def _run_session(self, call: RpcCall) -> None:
        stream = Stream(self._loop, call.peer())
        session = StreamSession(self._sessions, stream, self._certificate_of(call))
        reading = asyncio.ensure_future(self._read(call, session, stream))
        self._expect_registration(session, stream)
        try:
            await stream.pump(call)
        finally:
            if stream.deadline is not None:
                stream.deadline.cancel()
            reading.cancel()
            self._bridge.call_soon(session.close)

    def _expect_registration(self, session: StreamSession, stream: Stream) -> None:
        stream.deadline = self._loop.call_later(self.first_message_seconds, self._check_silence, session, stream)

    def _check_silence(self, session: StreamSession, stream: Stream) -> None:
        stream.deadline = None
        if stream.heard_at is not None:
            return
        if self._bridge.is_behind():
            # What it sent may wait to be read.
            self._expect_registration(session, stream)
        else:
            self._bridge.call(session.expect_registration)

    def _certificate_of(self, call: RpcCall) -> WorkerCertificate | None:
        return None if self._tls is None else self._tls.certificate_of(call)

    async def _read(self, call: RpcCall, session: StreamSession, stream: Stream) -> None:
        process = session.process
        try:
            while (data := await call.read()) is not _END_OF_STREAM:
                if stream.heard_at is None and not self.registrations.arrive():
                    stream.heard_at = time.monotonic()
                    stream.refuse(self._busy())
                    return
                if stream.put(data, time.monotonic()):
                    self._bridge.call_soon(process)
                # HTTP/2's flow control slows down a worker that sends faster than the hub can follow, and no other.
                pause_seconds = _SLOW_DOWN_SECONDS
                while stream.waiting > _MAX_WAITING_MESSAGES:
                    await asyncio.sleep(pause_seconds)
                    # What the worker sends now is not read, so it is not silent.
                    stream.heard_at = time.monotonic()
                    pause_seconds = min(2 * pause_seconds, _MAX_SLOW_DOWN_SECONDS)
        finally:
            stream.hang_up()

    async def _send_heartbeat(self, data: bytes, call: RpcCall) -> bytes:
        backlog_seconds = self._bridge.backlog_seconds()
        if backlog_seconds > _MAX_BACKLOG_SECONDS or self._single_heartbeats >= _MAX_SINGLE_HEARTBEATS:
            delay_seconds = min(max(1.0, backlog_seconds), _MAX_HEARTBEAT_DELAY_SECONDS)
            self._receipts.turn_away(delay_seconds)
            reason = f"the master is {backlog_seconds:.0f} s behind; try again, or better open a stream (Connect)"
            self._count("SendHeartbeat", grpc.StatusCode.RESOURCE_EXHAUSTED)
            await self._turn_away(call, RpcStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, delay_seconds))
        self._single_heartbeats += 1
        try:
            await self._refuse_stranger(call, "send_heartbeat")
            answer: asyncio.Future[bytes | RpcStatus] = self._loop.create_future()
            self._bridge.call_soon(
                partial(self._answer, answer, data, time.monotonic(), call.peer(), self._certificate_of(call))
            )
            result = await answer
        finally:
            self._single_heartbeats -= 1
        if isinstance(result, RpcStatus):
            self._count("SendHeartbeat", result.code)
            await call.abort(result.code, result.details)
        self._count("SendHeartbeat", grpc.StatusCode.OK)
        return result


def _listen(
    server: grpc.aio.Server,
    setting: str,
    address: Address,
    new_credentials: Callable[[], grpc.ServerCredentials] | None = None,
) -> None:
    """Listens without TLS if there are no credentials. Raises ``ConfigError`` that names the setting.

    Each address has credentials of its own: grpc loads the certificate of one object for one port only.
    """
    for one in listen_addresses(address):
        try:
            if new_credentials is None:
                server.add_insecure_port(str(one))
            else:
                server.add_secure_port(str(one), new_credentials())
        except RuntimeError as error:
            raise ConfigError(f"{setting}: cannot listen on {one}: {error}") from error


def _resolve(answer: "asyncio.Future[bytes | RpcStatus]", result: bytes | RpcStatus) -> None:
    if not answer.done():
        answer.set_result(result)
