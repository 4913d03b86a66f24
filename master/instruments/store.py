"""What the master counts of the store."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from fleetpulse.master.instruments.hub import FAST_SECONDS


class StoreInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commit = Histogram(
            "fleetpulse_store_commit_seconds",
            "Time of one transaction of the store, made durable.",
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.errors = Counter(
            "fleetpulse_store_errors_total",
            "Transactions of the store that failed, by why.",
            ["reason"],
            registry=registry,
        )
