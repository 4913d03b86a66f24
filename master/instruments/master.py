"""The master's own metrics, as objects that are built once and passed to whoever counts.

The telemetry of the workers is not here: that follows the live table (``metrics.exposition``).
"""

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, disable_created_metrics
from prometheus_client.gc_collector import GCCollector

from fleetpulse.master.instruments.audit import AuditInstruments
from fleetpulse.master.instruments.certificates import CertificateInstruments
from fleetpulse.master.instruments.exposition import ExpositionInstruments
from fleetpulse.master.instruments.history import HistoryInstruments
from fleetpulse.master.instruments.http import HttpInstruments
from fleetpulse.master.instruments.process import ProcessMetrics
from fleetpulse.master.instruments.rpc import RpcInstruments
from fleetpulse.master.instruments.store import StoreInstruments
from fleetpulse.master.instruments.stream import StreamInstruments
from fleetpulse.master.instruments.tasks import TaskInstruments
from fleetpulse.master.instruments.telemetry import TelemetryInstruments

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
