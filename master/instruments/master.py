"""The master's own metrics, as objects that are built once and passed to whoever counts.

The telemetry of the workers is not here: that follows the live table (``metrics.exposition``).
"""

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, disable_created_metrics
from prometheus_client.gc_collector import GCCollector

from master.instruments.audit import AuditInstruments
from master.instruments.certificates import CertificateInstruments
from master.instruments.exposition import ExpositionInstruments
from master.instruments.history import HistoryInstruments
from master.instruments.http import HttpInstruments
from master.instruments.process import ProcessMetrics
from master.instruments.rpc import RpcInstruments
from master.instruments.store import StoreInstruments
from master.instruments.stream import StreamInstruments
from master.instruments.tasks import TaskInstruments
from master.instruments.telemetry import TelemetryInstruments

# A series more for each counter and histogram, which says since when it counts: process_start_time_seconds does.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types


class Instruments:
    """Every metric that the master keeps of itself, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessMetrics(registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.telemetry = TelemetryInstruments(registry)
        self.rpc = RpcInstruments(registry)
        self.http = HttpInstruments(registry)
        self.exposition = ExpositionInstruments(registry)
        self.build_info = Gauge(
            "fleetpulse_build_info",
            "Always 1; the labels say what runs.",
            ["version", "python_version"],
            registry=registry,
        )
        self.tasks = TaskInstruments(registry)
        self.store = StoreInstruments(registry)
        self.stream = StreamInstruments(registry)
        self.history = HistoryInstruments(registry)
        self.certificates = CertificateInstruments(registry)
        self.audit = AuditInstruments(registry)
