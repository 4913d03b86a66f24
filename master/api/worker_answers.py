"""What is answered about the master and its workers, as types. They describe; tests hold real answers to them."""

from typing import Annotated, Literal

from msgspec import Meta, field

from fleetpulse.master.api.answers import Count, Percent, ResponseModel, UnixSeconds


class Health(ResponseModel):
    """How the master is."""

    status: Literal["healthy", "unhealthy"]
    time: UnixSeconds
    version: str
    failing: dict[str, str] = field(default_factory=dict)
    """What is wrong, by part of the master; absent while all is well."""


class WorkerSummary(ResponseModel):
    """A worker in short."""

    worker_id: str
    is_active: bool
    """False when the worker has been silent for the inactivity timeout."""
    running_tasks_count: Count
    last_update: UnixSeconds


class RunningTask(ResponseModel):
    """A task that the worker runs now."""

    task_id: str
    attempt: Count
    cpu_usage: float | None
    """Percent of one core: 200 is two cores kept busy."""
    memory_used_bytes: Count | None


class Cpu(ResponseModel):
    """The processors."""

    usage_percent: Percent | None
    logical_cores: Count | None


class Memory(ResponseModel):
    """Memory and swap."""

    used_bytes: Count | None
    size_bytes: Count | None
    swap_used_bytes: Count | None
    swap_size_bytes: Count | None


class Load(ResponseModel):
    """Load averages over 1, 5 and 15 minutes."""

    load1: float | None
    load5: float | None
    load15: float | None


class Filesystem(ResponseModel):
    """A mounted filesystem."""

    mountpoint: str
    used_bytes: Count | None
    size_bytes: Count | None


class DiskDevice(ResponseModel):
    """Counters since boot."""

    device: str
    read_bytes: Count | None
    written_bytes: Count | None


class NetworkInterface(ResponseModel):
    """Counters since boot."""

    interface: str
    received_bytes: Count | None
    transmitted_bytes: Count | None


class Gpu(ResponseModel):
    """A GPU."""

    index: Count
    uuid: str
    name: str
    utilization_percent: Percent | None
    memory_used_bytes: Count | None
    memory_size_bytes: Count | None
    temperature_celsius: float | None
    power_watts: float | None


class CollectorReport(ResponseModel):
    """How one of the worker's collectors fared."""

    collector: str
    success: bool
    duration_seconds: Annotated[float, Meta(ge=0)]
    error: str | None


class CustomSample(ResponseModel):
    """A sample of a metric that the worker's operator added; `fleetpulse_custom_<name>` on /metrics."""

    name: str
    type: Literal["gauge", "counter", "untyped"]
    labels: dict[str, str]
    value: float


class Readings(ResponseModel):
    """A worker's resource readings. What the machine does not give is null, never 0."""

    cpu: Cpu
    memory: Memory
    load: Load
    uptime_seconds: float | None
    filesystems: list[Filesystem]
    disk_devices: list[DiskDevice]
    network_interfaces: list[NetworkInterface]
    gpus: list[Gpu]
    collectors: list[CollectorReport]
    custom: list[CustomSample]


class WorkerRecord(Readings):
    """The latest that is known of a worker. An inactive one keeps its last readings."""

    worker_id: str
    cpu_usage: Percent | None
    """Percent of all cores."""
    memory_usage: Percent | None
    """Percent of the memory's size."""
    gpu_usage: Percent | None
    """Mean utilisation of the GPUs; null without one."""
    running_tasks: list[RunningTask]
    last_update: UnixSeconds
    is_active: bool


class Resources(ResponseModel):
    """Of resources, as much as the worker has, has given away, or has left."""

    cpu_cores: float | None
    memory_bytes: Count | None
    gpu_count: Count | None
    gpu_uuids: list[str]


class Heartbeats(ResponseModel):
    """What became of the worker's heartbeats since it was registered."""

    received: Count
    dropped: Count
    missed: Count


class TaskSupport(ResponseModel):
    """Whether the worker runs tasks and gets new ones."""

    count: Count
    """Live attempts."""
    supported: bool
    support_reason: str | None
    accepted: bool
    """Whether it may get new tasks."""
    refusal: str | None
    draining: bool
    drain_reason: str | None


class WorkerDetails(ResponseModel):
    """Who a worker is, what it has, and its record."""

    worker_id: str
    hostname: str | None
    version: str | None
    labels: dict[str, str]
    capacity: Resources
    boot_time: float | None
    registered_at: UnixSeconds
    is_active: bool
    heartbeats: Heartbeats
    allocated: Resources
    """What its live attempts take."""
    available: Resources
    """The capacity without what is allocated, whatever else the machine does."""
    tasks: TaskSupport
    telemetry: WorkerRecord


class TargetGroup(ResponseModel):
    """A target as Prometheus' HTTP service discovery has it."""

    targets: list[str]
    labels: dict[str, str]
