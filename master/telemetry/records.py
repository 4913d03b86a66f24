"""The master's knowledge of a worker, as immutable snapshots.

The readings are also the answers of REST: ``msgspec`` encodes them as they are, the annotations give their OpenAPI
schema, and ``decoding`` checks heartbeats by the same annotations. So a field is declared here and nowhere else.

``None`` always means "the machine did not give this reading"; it is never replaced by 0. Percentages run from 0 to 100,
times are Unix seconds, counters run since the machine's boot.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Protocol

from msgspec import Meta, Struct, field

from fleetpulse.master.telemetry.cores import Core

Percent = Annotated[float, Meta(ge=0, le=100)]
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Clock(NamedTuple):
    """Where the time comes from. Liveness uses ``monotonic``; ``wall`` only stamps what people read."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


# Readings


class Cpu(Struct, frozen=True, gc=False):
    """The processors."""

    usage_percent: Percent | None = None
    logical_cores: Count | None = None


class Memory(Struct, frozen=True, gc=False):
    """Memory and swap."""

    used_bytes: Count | None = None
    size_bytes: Count | None = None
    swap_used_bytes: Count | None = None
    swap_size_bytes: Count | None = None


class Load(Struct, frozen=True, gc=False):
    """Load averages over 1, 5 and 15 minutes."""

    load1: Amount | None = None
    load5: Amount | None = None
    load15: Amount | None = None


class Filesystem(Struct, frozen=True, gc=False):
    """A mounted filesystem. Its share in use is used / (used + available), as `df` has it."""

    mountpoint: str
    used_bytes: Count | None = None
    size_bytes: Count | None = None
    available_bytes: Count | None = None
    """What a user without privileges can still write."""

    inodes: Count | None = None
    inodes_free: Count | None = None
    is_read_only: bool | None = None
    device: str | None = None
    fstype: str | None = None
    state: str | None = None
    """`ok`; `error`: it cannot be read; `read_only`: it should be writable."""

    state_reason: str | None = None

    @property
    def used_ratio(self) -> float | None:
        """Share in use, 0 to 1. Of the size where the worker does not say what is available."""
        used = self.used_bytes
        total = self.size_bytes if self.available_bytes is None else (used or 0) + self.available_bytes
        return None if used is None or not total else min(used / total, 1.0)

    @property
    def inodes_used_ratio(self) -> float | None:
        """Share of the inodes in use, 0 to 1."""
        if not self.inodes or self.inodes_free is None:
            return None
        return max(0.0, 1.0 - self.inodes_free / self.inodes)

    @property
    def is_in_error(self) -> bool | None:
        """Whether it cannot be read."""
        return None if self.state is None else self.state == "error"

    @property
    def is_broken(self) -> bool | None:
        """Whether it is read-only and should be writable."""
        return None if self.state in (None, "error") else self.state == "read_only"


class DiskDevice(Struct, frozen=True, gc=False):
    """Counters since boot."""

    device: str
    read_bytes: Count | None = None
    written_bytes: Count | None = None
    size_bytes: Count | None = None
    state: str | None = None
    """`ok`; `error`: the kernel has given it up, or it says that it is worn out; null where it does not say."""

    state_reason: str | None = None

    @property
    def is_in_error(self) -> bool | None:
        """Whether its state is ``error``."""
        return None if self.state is None else self.state == "error"


class NetworkInterface(Struct, frozen=True, gc=False):
    """Counters since boot."""

    interface: str
    received_bytes: Count | None = None
    transmitted_bytes: Count | None = None


class Pressure(Struct, frozen=True, gc=False):
    """Time in which some processes with work waited, or all (stalled): percent of the last 10 s, seconds since boot."""

    cpu_waiting_percent: Percent | None = None
    cpu_waiting_seconds: Amount | None = None
    memory_waiting_percent: Percent | None = None
    memory_waiting_seconds: Amount | None = None
    memory_stalled_percent: Percent | None = None
    memory_stalled_seconds: Amount | None = None
    io_waiting_percent: Percent | None = None
    io_waiting_seconds: Amount | None = None
    io_stalled_percent: Percent | None = None
    io_stalled_seconds: Amount | None = None


class Sensor(Struct, frozen=True, gc=False):
    """A temperature or a fan; `sensor` is its chip and label, as `coretemp/Package id 0`."""

    sensor: str
    temperature_celsius: float | None = None
    fan_rpm: Amount | None = None


class GpuProcess(Struct, frozen=True, gc=False):
    """A process that holds a GPU."""

    pid: Count
    user: str | None = None
    """Its name, or the number of one without a name."""
    command: str | None = None
    """The command's name, without arguments."""
    memory_used_bytes: Count | None = None


class GpuInstance(Struct, frozen=True, gc=False):
    """A part of a divided GPU (MIG)."""

    uuid: str
    name: str
    gpu: Count
    """The index of the GPU."""
    memory_used_bytes: Count | None = None
    memory_size_bytes: Count | None = None


class Gpu(Struct, frozen=True, gc=False):
    """A GPU."""

    index: Count
    uuid: str
    name: str
    utilization_percent: Percent | None = None
    memory_used_bytes: Count | None = None
    memory_size_bytes: Count | None = None
    temperature_celsius: float | None = None
    power_watts: Amount | None = None
    state: str | None = None
    """`ok`, `error` or `lost`; null when the worker does not say."""
    state_reason: str | None = None
    power_limit_watts: Amount | None = None
    clock_hertz: Amount | None = None
    memory_clock_hertz: Amount | None = None
    encoder_utilization_percent: Percent | None = None
    decoder_utilization_percent: Percent | None = None
    is_throttled: bool | None = None
    """Too hot, or slowed down by the hardware. Its power limit, which every loaded GPU meets, does not count."""
    ecc_corrected_errors: Count | None = None
    ecc_uncorrected_errors: Count | None = None
    last_xid: Count | None = None
    nvlink_errors: Count | None = None
    vendor: str | None = None
    throttle_reasons: tuple[str, ...] = ()
    process_count: Count | None = None
    processes: tuple[GpuProcess, ...] = ()
    """Those that take the most memory."""
    instances: tuple[GpuInstance, ...] = ()

    @property
    def is_up(self) -> bool | None:
        """Whether it answers; ``None`` when the worker does not say."""
        return None if self.state is None else self.state == "ok"

    @property
    def is_lost(self) -> bool | None:
        """Whether it is off the bus, or no longer counted by its driver."""
        return None if self.state is None else self.state == "lost"


class CollectorReport(Struct, frozen=True, gc=False):
    """How one of the worker's collectors fared."""

    collector: str
    success: bool
    duration_seconds: Amount
    error: str | None = None
    age_seconds: Amount | None = None
    """Of readings that came too late for the heartbeat before."""


class LeftOut(Struct, frozen=True, gc=False):
    """Devices that one of the worker's collectors read and did not report, because there are too many."""

    collector: str
    count: Count


class RunningTask(Struct, frozen=True, gc=False):
    """A task that the worker runs now."""

    task_id: str
    attempt: Count
    cpu_usage_percent: Amount | None = field(default=None, name="cpu_usage")
    """Percent of one core: 200 is two cores kept busy."""

    memory_used_bytes: Count | None = None


class ResourceReadings(Struct, frozen=True, gc=False, kw_only=True):
    """A worker's resource readings. What the machine does not give is null, never 0."""

    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    load: Load = Load()
    uptime_seconds: Amount | None = None
    filesystems: tuple[Filesystem, ...] = ()
    disk_devices: tuple[DiskDevice, ...] = ()
    network_interfaces: tuple[NetworkInterface, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    collectors: tuple[CollectorReport, ...] = ()
    pressure: Pressure = Pressure()
    sensors: tuple[Sensor, ...] = ()
    systemd_failed_units: Count | None = None
    left_out: tuple[LeftOut, ...] = ()
    """Of collectors with more devices than a heartbeat takes; empty when every device is here."""

    @property
    def slowest_collector_seconds(self) -> float | None:
        return max([report.duration_seconds for report in self.collectors], default=None)


CustomKind = Literal["gauge", "counter", "untyped"]
CustomSeries = tuple[tuple[str, str], ...]
"""The labels of one sample, sorted by name; none is empty."""


class CustomLayout(NamedTuple):
    """A custom metric without its numbers."""

    name: str
    kind: CustomKind
    help: str
    series: tuple[CustomSeries, ...]

    @property
    def family(self) -> str:
        """Its name in OpenMetrics, where the end of a counter's name belongs to its samples."""
        return self.name.removesuffix("_total")


class CustomMetric(NamedTuple):
    """Samples of a metric that the worker's operator added; a number for each series of the layout."""

    layout: CustomLayout
    values: tuple[float, ...]


class TaskSupport(Struct, frozen=True, gc=False):
    """Whether a worker can run tasks now, and why not."""

    available: bool
    reason: str = ""


class Reading(ResourceReadings, frozen=True, gc=False, kw_only=True):
    """The content of one heartbeat, checked against the contract."""

    running_tasks: tuple[RunningTask, ...] = ()
    task_support: TaskSupport | None = None
    engine_failures: Count | None = None
    boot_time_unix_seconds: Amount | None = None
    cores: tuple[Core, ...] = ()
    custom: tuple[CustomMetric, ...] = ()
    """Several may belong to one family, with different labels."""


# The worker


class Resources(Struct, frozen=True, gc=False):
    """An amount of resources: the capacity of a worker, or its allocated or available part."""

    cpu_cores: Amount | None = None
    memory_bytes: Count | None = None
    gpu_count: Count | None = None
    gpu_uuids: tuple[str, ...] = ()


class Allocation(Struct, frozen=True, gc=False):
    """The part of a worker's capacity that its live attempts take; set by the task service."""

    cpu_cores: float = 0.0
    memory_bytes: int = 0
    gpu_uuids: tuple[str, ...] = ()
    tasks: int = 0
    refusal: str | None = None
    """Why the worker gets no new tasks; ``None`` while it may get some."""

    drain_reason: str | None = None
    """Why it was drained, which may be empty; ``None`` while it is not drained."""

    degraded_reason: str | None = None
    """Why attempts fail on it before their command runs; ``None`` unless they do."""


class Registration(Struct, frozen=True, gc=False):
    """Sent by a worker once a connection. A worker known by heartbeats alone has an empty one."""

    incarnation_id: str = ""
    hostname: str = ""
    version: str = ""
    boot_time: float | None = None
    capacity: Resources = Resources()
    labels: Mapping[str, str] = MappingProxyType({})
    task_support: TaskSupport | None = None
    peer_host: str = ""
    """Where its connection came from. Not what the worker says."""


class HeartbeatCounts(Struct, frozen=True, gc=False):
    """The worker's heartbeats since it was registered."""

    received: Count = 0
    dropped: Count = 0
    missed: Count = 0
    refused: Count = 0
    refusal: str | None = None
    """Why the last one was refused; null when it was accepted."""

    refused_since: float | None = None
    """The first one refused after an accepted one, Unix seconds by the master's clock."""

    clock_skew_seconds: float | None = None
    """How far the worker's clock was ahead of the master's; negative: behind. Includes the way to the master."""

    @property
    def is_refused(self) -> bool:
        """Whether the last one was refused."""
        return self.refusal is not None


class WorkerTelemetry(Struct, frozen=True, gc=False):
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
    def boot_time(self) -> float | None:
        """By the worker's clock, Unix seconds."""
        current = self.reading.boot_time_unix_seconds
        return self.registration.boot_time if current is None else current

    @property
    def cpu_usage(self) -> float | None:
        """Percent of all cores, 0 to 100."""
        return self.reading.cpu.usage_percent

    @property
    def memory_usage(self) -> float | None:
        """Percent of the memory's size, 0 to 100."""
        memory = self.reading.memory
        used, size = memory.used_bytes, memory.size_bytes
        return None if used is None or not size else min(100.0 * used / size, 100.0)

    @property
    def gpu_usage(self) -> float | None:
        """Mean utilisation of the machine's GPUs, percent; ``None`` without a GPU that gives the reading."""
        return mean_gpu_utilization(self.reading.gpus)

    @property
    def task_support(self) -> TaskSupport | None:
        """Whether the worker can run tasks, by its latest message; ``None`` for one that only reports telemetry."""
        return self.reading.task_support or self.registration.task_support

    @property
    def is_schedulable(self) -> bool:
        """Whether the worker may get new tasks."""
        support = self.task_support
        return support is not None and support.available and self.allocation.refusal is None

    @property
    def is_drained(self) -> bool:
        """Whether an operator has drained the worker."""
        return self.allocation.drain_reason is not None

    @property
    def running_tasks(self) -> tuple[RunningTask, ...]:
        return self.reading.running_tasks

    @property
    def running_tasks_count(self) -> int | None:
        """``None`` before the first heartbeat."""
        return len(self.reading.running_tasks) if self.counts.received else None


def mean_gpu_utilization(gpus: Sequence[Gpu]) -> float | None:
    """Percent; ``None`` without a GPU that gives the reading."""
    known = [gpu.utilization_percent for gpu in gpus if gpu.utilization_percent is not None]
    return sum(known) / len(known) if known else None


UpdateCallback = Callable[[str, WorkerTelemetry], None]


class TelemetryObserver(Protocol):
    """Keeps a view of the live table. Called on the hub; must not switch, block or raise."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is new, was updated, or turned active or inactive."""

    def worker_removed(self, worker_id: str) -> None:
        """The worker left the table."""
