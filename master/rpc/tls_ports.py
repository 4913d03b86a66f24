"""What a CA makes of the gRPC ports: one that speaks TLS with workers, and one for those that have no certificate yet.

The server knows it by its type alone, so that a master without a CA need not load cryptography.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc

from fleetpulse.master.addresses import Address
from fleetpulse.master.audit.entry import Record
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.pki.authority import Authority
from fleetpulse.master.rpc.bridge import HubBridge
from fleetpulse.master.rpc.enrollment import Attempts, Enrollment
from fleetpulse.master.rpc.listening import listen
from fleetpulse.master.rpc.peer import peer_certificate
from fleetpulse.master.rpc.stream import Call
from fleetpulse.master.rpc.tls import ServerCertificate, Watch
from fleetpulse.proto import fleetpulse_pb2 as pb

_ENROLLMENT_NAME = pb.DESCRIPTOR.services_by_name["Enrollment"].full_name

_JOIN_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024),
    ("grpc.so_reuseport", 0),
    # Who has joined goes; who does not, too.
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
)
_JOINS_AT_ONCE = 64

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class TlsPorts:
    """Given to ``RpcServer``, which starts and stops it. ``names`` are those by which workers reach the master."""

    def __init__(self, authority: Authority, join: Address, names: Sequence[str]) -> None:
        self._authority, self._join, self._names = authority, join, names
        self._shown: ServerCertificate | None = None
        self._enrollment: Enrollment | None = None
        self._watch: Watch | None = None
        self._join_server: grpc.aio.Server | None = None

    @property
    def admission(self) -> Admission:
        return self._authority.admission

    # On the hub

    def start(
        self, instruments: Instruments, bridge: HubBridge, record: Record, end_refused: Callable[[], None]
    ) -> None:
        """Make the master's certificate, and look from now on who is revoked. Before the ports are opened."""
        self._shown = ServerCertificate(self._authority, self._names, time.time)
        self._enrollment = Enrollment(self._authority, instruments, bridge, Attempts(time.monotonic), record)
        self._watch = Watch(self._authority, self._shown, instruments, end_refused)
        self._watch.start()

    def stop(self) -> None:
        """Begin nothing new."""
        if self._watch is not None:
            self._watch.stop()
        if self._enrollment is not None:
            self._enrollment.close()

    # In grpc's thread

    def credentials(self) -> grpc.ServerCredentials:
        """Of the port for workers."""
        assert self._shown is not None  # nosec B101 # for the type checker
        return self._shown.credentials(for_workers=True)

    def renew_handler(self) -> Handler:
        assert self._enrollment is not None  # nosec B101 # for the type checker
        return grpc.unary_unary_rpc_method_handler(self._enrollment.renew)

    def certificate_of(self, call: Call) -> WorkerCertificate | None:
        """What the other end has shown; ``None`` for a certificate that is none of a worker."""
        return peer_certificate(call)

    async def open_join_port(self) -> None:
        """Raises ``ConfigError`` when it is not to be had."""
        assert self._shown is not None  # nosec B101 # for the type checker
        assert self._enrollment is not None  # nosec B101 # for the type checker
        join: Handler = grpc.unary_unary_rpc_method_handler(self._enrollment.join)
        server = grpc.aio.server(options=_JOIN_OPTIONS, maximum_concurrent_rpcs=_JOINS_AT_ONCE)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_ENROLLMENT_NAME, {"Join": join}),))
        listen(server, "JOIN_PORT", self._join, self._shown.credentials(for_workers=False))
        self._join_server = server
        await server.start()

    async def close_join_port(self) -> None:
        if self._join_server is not None:
            await self._join_server.stop(0.0)
