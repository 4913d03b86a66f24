"""What the master counts of the history that it keeps."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from fleetpulse.master.instruments.hub import FAST_SECONDS, HubCounter


class HistoryInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples = HubCounter(
            "fleetpulse_history_samples_total", "Updates of workers that were taken into the history.", registry
        )
        self.points_dropped = Counter(
            "fleetpulse_history_points_dropped_total",
            "Points of the history that were given up, because the store was away for too long.",
            registry=registry,
        )
        self.write = Histogram(
            "fleetpulse_history_write_seconds",
            "Time of one transaction that wrote history.",
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.rows = Counter(
            "fleetpulse_history_written_rows_total", "Rows of history that were written.", registry=registry
        )
        self.bytes = Counter(
            "fleetpulse_history_written_bytes_total",
            "History that was written, compressed, without what the database adds.",
            registry=registry,
        )
        self.prometheus_failures = Counter(
            "fleetpulse_history_prometheus_failures_total",
            "Reads of history that the store answered because Prometheus did not.",
            registry=registry,
        )
