"""What the master counts of those who ask it over HTTP."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fleetpulse.master.instruments.hub import FAST_SECONDS

REASONS = (
    "answer_not_taken",
    "body_too_large",
    "client_connections",
    "client_readers",
    "client_requests",
    "connections",
    "head_too_large",
    "idle",
    "json_too_deep",
    "line_too_long",
    "malformed",
    "readers",
    "slow_body",
    "slow_head",
    "tls_handshake",
)
"""Every reason for which something is refused or cut; ``docs/security.md`` says of each when."""


class HttpInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "fleetpulse_http_requests_total",
            "Answered requests, by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "fleetpulse_http_request_duration_seconds",
            "Time to make an answer, its sending left out, by route.",
            ["route"],
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.connections = Gauge(
            "fleetpulse_http_connections", "Connections of HTTP clients that are open.", registry=registry
        )
        self.rejected = Counter(
            "fleetpulse_http_rejected_total",
            "Requests that were refused and connections that were cut because of a limit, by reason.",
            ["reason"],
            registry=registry,
        )
        self._by_reason = {reason: self.rejected.labels(reason) for reason in REASONS}

    def reject(self, reason: str) -> None:
        """Count one. ``reason`` is one of ``REASONS``."""
        self._by_reason[reason].inc()
