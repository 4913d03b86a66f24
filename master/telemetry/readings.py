"""What one heartbeat says of a machine, as immutable records.

The readings are also the answers of REST: ``msgspec`` encodes them as they are, the annotations give their OpenAPI
schema, and ``decoding`` checks heartbeats by the same annotations. So a field is declared here and nowhere else.

``None`` always means "the machine did not give this reading"; it is never replaced by 0. Percentages run from 0 to 100,
times are Unix seconds, counters run since the machine's boot.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct, field

Percent = Annotated[float, Meta(ge=0, le=100)]
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Cpu(Struct, frozen=True, gc=False):
    """The processors."""

    usage_percent: Percent | None = None
    logical_cores: Count | None = None


class Core(Struct, frozen=True, gc=False):
    """A logical core, which a worker reads only while somebody asks. Its use is null in the first reading."""

    core: Count
    usage_percent: Percent | None = None
    frequency_hertz: Amount | None = None


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


def mean_gpu_utilization(gpus: Sequence[Gpu]) -> float | None:
    """Percent; ``None`` without a GPU that gives the reading."""
    known = [gpu.utilization_percent for gpu in gpus if gpu.utilization_percent is not None]
    return sum(known) / len(known) if known else None
