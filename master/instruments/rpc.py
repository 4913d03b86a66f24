"""What the master counts of those who come by gRPC."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class RpcInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge(
            "fleetpulse_worker_sessions", "Streams of workers that are open and registered.", registry=registry
        )
        self.sessions_refused = Counter(
            "fleetpulse_worker_sessions_refused_total",
            "Streams that the master ended with an error, by reason.",
            ["reason"],
            registry=registry,
        )
        self.requests = Counter(
            "fleetpulse_grpc_requests_total",
            "Calls that ended, by method and status code.",
            ["method", "code"],
            registry=registry,
        )
