"""What the master knows of a worker, as immutable snapshots.

``None`` always means "the machine did not give this reading"; it is never replaced by 0. Percentages run from 0 to 100,
times are Unix seconds, counters run since the machine's boot. The types are named tuples because one of each is built
for every heartbeat, and a named tuple is built four times faster than a frozen dataclass.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Capacity(NamedTuple):
    """What the machine has in all."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    gpu_count: int | None = None
    gpu_uuids: tuple[str, ...] = ()


class TaskSupport(NamedTuple):
    """Whether a worker can run tasks now, and why not."""

    available: bool
    reason: str = ""


class Allocation(NamedTuple):
    """What the live attempts of a worker take of its capacity; the task service tells."""

    cpu_cores: float = 0.0
    memory_bytes: int = 0
    gpu_uuids: tuple[str, ...] = ()
    tasks: int = 0
    refusal: str | None = None
    """Why the worker gets no new tasks; ``None`` while it may get some."""

    drain_reason: str | None = None
    """Why somebody drained it, which may be empty; ``None`` while it is not drained."""


class Registration(NamedTuple):
    """What a worker says of itself once a connection. A worker known by heartbeats alone has an empty one."""

    incarnation_id: str = ""
    hostname: str = ""
    version: str = ""
    boot_time: float | None = None
    capacity: Capacity = Capacity()
    labels: Mapping[str, str] = MappingProxyType({})
    task_support: TaskSupport | None = None


class FilesystemReading(NamedTuple):
    mountpoint: str
    used_bytes: int | None
    size_bytes: int | None


class DiskDeviceReading(NamedTuple):
    """Counters since boot."""

    device: str
    read_bytes: int | None
    written_bytes: int | None


class NetworkInterfaceReading(NamedTuple):
    """Counters since boot."""

    interface: str
    received_bytes: int | None
    transmitted_bytes: int | None


class GpuReading(NamedTuple):
    gpu_index: int
    uuid: str
    name: str
    utilization_percent: float | None
    memory_used_bytes: int | None
    memory_size_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None


class RunningTask(NamedTuple):
    """One task that the worker runs now. ``cpu_usage_percent`` is of one core: 200 is two cores kept busy."""

    task_id: str
    attempt: int
    cpu_usage_percent: float | None
    memory_used_bytes: int | None


class CollectorReport(NamedTuple):
    collector: str
    success: bool
    duration_seconds: float
    error: str


CustomSeries = tuple[tuple[str, str], ...]
"""The labels of one sample, sorted by name; none is empty."""


class CustomLayout(NamedTuple):
    """Of an own metric all but its numbers. ``kind`` is ``gauge``, ``counter`` or ``untyped``."""

    name: str
    kind: str
    help: str
    series: tuple[CustomSeries, ...]

    @property
    def family(self) -> str:
        """What OpenMetrics calls it, where the end of a counter's name belongs to its samples."""
        return self.name.removesuffix("_total")


class CustomMetric(NamedTuple):
    """Samples of a metric that the worker's operator added; a number for each series of the layout."""

    layout: CustomLayout
    values: tuple[float, ...]


class Reading(NamedTuple):
    """One heartbeat's worth of readings, checked against the contract."""

    cpu_usage_percent: float | None = None
    cpu_logical_cores: int | None = None
    memory_used_bytes: int | None = None
    memory_size_bytes: int | None = None
    swap_used_bytes: int | None = None
    swap_size_bytes: int | None = None
    load1: float | None = None
    load5: float | None = None
    load15: float | None = None
    uptime_seconds: float | None = None
    filesystems: tuple[FilesystemReading, ...] = ()
    disk_devices: tuple[DiskDeviceReading, ...] = ()
    network_interfaces: tuple[NetworkInterfaceReading, ...] = ()
    gpus: tuple[GpuReading, ...] = ()
    running_tasks: tuple[RunningTask, ...] = ()
    collectors: tuple[CollectorReport, ...] = ()
    task_support: TaskSupport | None = None
    engine_failures: int | None = None
    custom: tuple[CustomMetric, ...] = ()
    """Of one family there may be several, with different labels."""

    @property
    def slowest_collector_seconds(self) -> float | None:
        return max([report.duration_seconds for report in self.collectors], default=None)


class HeartbeatCounts(NamedTuple):
    """What became of a worker's heartbeats since it was registered."""

    received: int = 0
    dropped: int = 0
    missed: int = 0


class WorkerTelemetry(NamedTuple):
    """The latest that is known of one worker.

    ``last_update`` is the master's wall clock at the last receipt; it is for people and plots. Whether the worker is
    active was judged on the monotonic clock. ``revision`` grows with every change anywhere in the fleet.
    """

    worker_id: str
    registration: Registration
    registered_at: float
    is_active: bool
    last_update: float
    reading: Reading
    counts: HeartbeatCounts
    revision: int
    allocation: Allocation = Allocation()

    @property
    def cpu_usage(self) -> float | None:
        """Percent of all cores, 0 to 100."""
        return self.reading.cpu_usage_percent

    @property
    def memory_usage(self) -> float | None:
        """Percent of the memory's size, 0 to 100."""
        used, size = self.reading.memory_used_bytes, self.reading.memory_size_bytes
        return None if used is None or not size else min(100.0 * used / size, 100.0)

    @property
    def gpu_usage(self) -> float | None:
        """Mean utilisation of the machine's GPUs, percent; ``None`` without a GPU that gives the reading."""
        known = [gpu.utilization_percent for gpu in self.reading.gpus if gpu.utilization_percent is not None]
        return sum(known) / len(known) if known else None

    @property
    def task_support(self) -> TaskSupport | None:
        """The newest word on whether the worker can run tasks; ``None`` from one that only reports telemetry."""
        return self.reading.task_support or self.registration.task_support

    @property
    def is_schedulable(self) -> bool:
        """Whether the worker may get new tasks."""
        support = self.task_support
        return support is not None and support.available and self.allocation.refusal is None

    @property
    def running_tasks(self) -> tuple[RunningTask, ...]:
        return self.reading.running_tasks

    @property
    def running_tasks_count(self) -> int | None:
        """``None`` before the first heartbeat."""
        return len(self.reading.running_tasks) if self.counts.received else None
