"""What the master counts of the stream of telemetry and its readers."""

from prometheus_client import CollectorRegistry, Counter, Gauge

EVENTS = ("reset", "snapshot", "update", "removed", "problem")


class StreamInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readers = Gauge(
            "fleetpulse_stream_readers", "Clients that read the stream of telemetry now.", registry=registry
        )
        self.events = Counter(
            "fleetpulse_stream_events_total",
            "Events that were sent to readers of the stream of telemetry, by kind.",
            ["event"],
            registry=registry,
        )
        self.readers_cut = Counter(
            "fleetpulse_stream_readers_cut_total",
            "Readers of the stream of telemetry that took nothing for a minute, and were cut off.",
            registry=registry,
        )
        for kind in EVENTS:
            self.events.labels(kind)
