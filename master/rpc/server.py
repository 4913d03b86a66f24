"""The gRPC server: the Fleet service, standard health checking and reflection, on one port.

``grpc.experimental.gevent.init_gevent()`` must have run before anything here is built.
"""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from master.config import Address
from master.errors import ConfigError
from master.rpc.executor import GreenletExecutor
from master.rpc.servicer import SERVICE_NAME, FleetServicer

_CALLS_BESIDE_STREAMS = 1000

# Far above what the contract accepts, so that a message that is too large is refused by the codec, with a reason and a
# count, and not by grpc's core.
_MAX_RECEIVE_BYTES = 16 * 1024 * 1024

_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    # A second master on this port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # Workers beat every few seconds: a bandwidth probe with every message costs more than it brings.
    ("grpc.http2.bdp_probe", 0),
    # A worker whose machine lost power sends no FIN; find out, and accept the workers' own pings.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class RpcServer:
    """Owns the gRPC server and its greenlets."""

    def __init__(self, address: Address, servicer: FleetServicer, max_streams: int) -> None:
        self._servicer = servicer
        self._serving = False
        self._executor = GreenletExecutor()
        self._health = health.HealthServicer()
        self._server = grpc.server(
            self._executor,  # type: ignore[arg-type]  # only submit() of a ThreadPoolExecutor is used
            options=_OPTIONS,
            maximum_concurrent_rpcs=max_streams + _CALLS_BESIDE_STREAMS,
        )
        self._server.add_generic_rpc_handlers((servicer.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        try:
            self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise ConfigError(f"GRPC_PORT: cannot listen on {address}: {error}") from error

    def start(self) -> None:
        """Accept calls."""
        self._server.start()
        self._serving = True
        for service in ("", SERVICE_NAME):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def what_is_wrong(self) -> str | None:
        """Why the server takes no calls, or ``None``."""
        return None if self._serving else "the gRPC server takes no calls"

    def stop(self, grace_seconds: float = 2.0) -> None:
        """Tell every worker that the master stops, let calls end for ``grace_seconds``, then cancel the rest."""
        self._serving = False
        self._health.enter_graceful_shutdown()
        self._servicer.sessions.end_all()
        self._server.stop(grace_seconds).wait(grace_seconds + 1.0)
        self._executor.shutdown(wait=False)
