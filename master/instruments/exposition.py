"""What the master counts of /metrics."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

from fleetpulse.master.instruments.hub import FAST_SECONDS


class ExpositionInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "fleetpulse_exposition_duration_seconds",
            "Time to put the text of /metrics together.",
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.custom_samples_dropped = Gauge(
            "fleetpulse_custom_samples_dropped",
            "Samples of workers' own metrics that /metrics leaves out now, by why.",
            ["reason"],
            registry=registry,
        )
