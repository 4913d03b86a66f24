"""What the master counts of its audit trail."""

from prometheus_client import CollectorRegistry, Counter

QUEUE_FULL = "queue_full"
WRITE_FAILED = "write_failed"


class AuditInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.written = Counter(
            "fleetpulse_audit_entries_total", "Entries that were written to the audit trail.", registry=registry
        )
        self.dropped = Counter(
            "fleetpulse_audit_entries_dropped_total",
            "Entries that the audit trail lacks, by why.",
            ["reason"],
            registry=registry,
        )
        self.failures = Counter(
            "fleetpulse_audit_failures_total",
            "Times that the file of the audit trail could not be written or made durable.",
            registry=registry,
        )
        for reason in (QUEUE_FULL, WRITE_FAILED):
            self.dropped.labels(reason)
