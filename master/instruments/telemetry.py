"""What the master counts of heartbeats, and of the table that they lead to."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from fleetpulse.master.instruments.hub import FAST_SECONDS, HubCounter, HubHistogram


class TelemetryInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.heartbeats_received = HubCounter(
            "fleetpulse_heartbeats_received_total",
            "Heartbeats that the master accepted, over a stream or one by one.",
            registry,
        )
        self.heartbeats_dropped = HubCounter(
            "fleetpulse_heartbeats_dropped_total",
            "Accepted heartbeats that a newer one of the same worker overtook in a full queue.",
            registry,
        )
        self.heartbeats_rejected = Counter(
            "fleetpulse_heartbeats_rejected_total",
            "Heartbeats that the master refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.receipt_to_visible = HubHistogram(
            "fleetpulse_heartbeat_receipt_to_visible_seconds",
            "Time from a heartbeat's arrival in the master's code until REST and /metrics show it.",
            FAST_SECONDS,
            registry,
        )
        self.sent_to_visible = HubHistogram(
            "fleetpulse_heartbeat_sent_to_visible_seconds",
            "Time from a heartbeat's sending, by the worker's clock, until REST and /metrics show it, by the master's. "
            "Clocks that differ show up here.",
            FAST_SECONDS,
            registry,
        )
        self.callback_failures = Counter(
            "fleetpulse_update_callback_failures_total",
            "Exceptions out of the callback that receives every update.",
            registry=registry,
        )
        self.workers = Gauge(
            "fleetpulse_workers",
            "Workers that the master knows, by whether they are active.",
            ["state"],
            registry=registry,
        )
