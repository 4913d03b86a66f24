"""The answers about the master and its workers. The readings are those of ``telemetry.records``, as they are."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Literal, Self

from msgspec import UNSET, UnsetType, field

from fleetpulse.master.api.answers import Count, ResponseModel, UnixSeconds
from fleetpulse.master.telemetry.readings import (
    Core,
    CustomKind,
    CustomMetric,
    Percent,
    Reading,
    ResourceReadings,
    RunningTask,
)
from fleetpulse.master.telemetry.records import HeartbeatCounts, Resources, WorkerTelemetry

_readings_of = attrgetter(*ResourceReadings.__struct_fields__)


class Health(ResponseModel):
    """The health of the master."""

    status: Literal["healthy", "degraded", "unhealthy"]
    """Degraded: every part works, but the master is behind."""
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

    @classmethod
    def of(cls, telemetry: WorkerTelemetry) -> Self:
        return cls(telemetry.worker_id, telemetry.is_active, len(telemetry.running_tasks), int(telemetry.last_update))


class StreamSummary(ResponseModel):
    """A worker as a table or a grid shows it; sent by the stream. Rounded, to save bytes."""

    worker_id: str
    hostname: str | None
    is_active: bool
    last_update: UnixSeconds
    cpu_usage: Percent | None
    memory_usage: Percent | None
    gpu_usage: Percent | None
    gpus: list[Percent | None]
    cpu_cores: Count | None
    memory_used_bytes: Count | None
    memory_size_bytes: Count | None
    load1: float | None
    running_tasks_count: Count | None
    accepts_tasks: bool
    draining: bool

    @classmethod
    def of(cls, telemetry: WorkerTelemetry) -> Self:
        reading = telemetry.reading
        memory = reading.memory
        return cls(
            telemetry.worker_id,
            telemetry.registration.hostname or None,
            telemetry.is_active,
            int(telemetry.last_update),
            _rounded(telemetry.cpu_usage),
            _rounded(telemetry.memory_usage),
            _rounded(telemetry.gpu_usage),
            [_rounded(gpu.utilization_percent) for gpu in reading.gpus],
            reading.cpu.logical_cores,
            memory.used_bytes,
            memory.size_bytes,
            _rounded(reading.load.load1, 2),
            telemetry.running_tasks_count,
            telemetry.is_active and telemetry.is_schedulable,
            telemetry.allocation.drain_reason is not None,
        )


class CustomSample(ResponseModel):
    """A sample of a metric that the worker's operator added; `fleetpulse_custom_<name>` on /metrics."""

    name: str
    type: CustomKind
    labels: dict[str, str]
    value: float


class WorkerMetrics(ResourceReadings, frozen=True, gc=False, kw_only=True):
    """A worker's resource readings. What the machine does not give is null, never 0."""

    custom: Sequence[CustomSample]
    cores: Sequence[Core] | UnsetType = UNSET
    """Only where `per_core` asks for them."""

    @classmethod
    def of(cls, telemetry: WorkerTelemetry) -> Self:
        return cls(**_readings(telemetry.reading))

    @classmethod
    def with_cores(cls, telemetry: WorkerTelemetry) -> Self:
        return cls(**_readings(telemetry.reading), cores=telemetry.reading.cores)


# The readings are keyword-only, so these fields come before them in the JSON.
class WorkerRecord(WorkerMetrics, frozen=True, gc=False):
    """The latest that is known of a worker. An inactive one keeps its last readings."""

    worker_id: str
    cpu_usage: Percent | None
    """Percent of all cores."""
    memory_usage: Percent | None
    """Percent of the memory's size."""
    gpu_usage: Percent | None
    """Mean utilisation of the GPUs; null without one."""
    running_tasks: Sequence[RunningTask]
    last_update: UnixSeconds
    is_active: bool

    @classmethod
    def of(cls, telemetry: WorkerTelemetry) -> Self:
        return cls(
            telemetry.worker_id,
            telemetry.cpu_usage,
            telemetry.memory_usage,
            telemetry.gpu_usage,
            telemetry.running_tasks,
            int(telemetry.last_update),
            telemetry.is_active,
            **_readings(telemetry.reading),
        )


class WorkerTasks(ResponseModel):
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
    degraded: bool
    """Whether tasks fail on it before their command runs. It is avoided for a while, then one task tries it."""
    degraded_reason: str | None

    @classmethod
    def of(cls, telemetry: WorkerTelemetry) -> Self:
        taken, support = telemetry.allocation, telemetry.task_support
        unsupported = _unsupported_reason(telemetry)
        refusal = taken.refusal or unsupported if telemetry.is_active else "it is inactive"
        return cls(
            count=taken.tasks,
            supported=support is not None and support.available,
            support_reason=unsupported,
            accepted=refusal is None,
            refusal=refusal,
            draining=taken.drain_reason is not None,
            drain_reason=taken.drain_reason,
            degraded=taken.degraded_reason is not None,
            degraded_reason=taken.degraded_reason,
        )


class WorkerDetails(ResponseModel):
    """A worker's identity, resources, tasks and record."""

    worker_id: str
    hostname: str | None
    version: str | None
    labels: dict[str, str]
    capacity: Resources
    boot_time: float | None
    registered_at: UnixSeconds
    is_active: bool
    heartbeats: HeartbeatCounts
    allocated: Resources
    """What its live attempts take."""
    available: Resources
    """The capacity without what is allocated, whatever else the machine does."""
    tasks: WorkerTasks
    telemetry: WorkerRecord

    @classmethod
    def of(cls, telemetry: WorkerTelemetry, heartbeats: Any, record: Any) -> Self:
        """``heartbeats`` and ``record`` are those of the worker, or ``msgspec.Raw`` with their JSON."""
        registration = telemetry.registration
        return cls(
            worker_id=telemetry.worker_id,
            hostname=registration.hostname or None,
            version=registration.version or None,
            labels=dict(registration.labels),
            capacity=registration.capacity,
            boot_time=telemetry.boot_time,
            registered_at=int(telemetry.registered_at),
            is_active=telemetry.is_active,
            heartbeats=heartbeats,
            allocated=_allocated(telemetry),
            available=_available(telemetry),
            tasks=WorkerTasks.of(telemetry),
            telemetry=record,
        )


def _readings(reading: Reading) -> dict[str, Any]:
    readings = dict(zip(ResourceReadings.__struct_fields__, _readings_of(reading), strict=True))
    readings["custom"] = _custom_samples(reading.custom) if reading.custom else ()
    return readings


def _custom_samples(metrics: Sequence[CustomMetric]) -> list[CustomSample]:
    """One complete object for each sample, so that one line of jq finds it."""
    return [
        CustomSample(layout.name, layout.kind, dict(series), value)
        for layout, values in metrics
        for series, value in zip(layout.series, values, strict=True)
    ]


def _allocated(telemetry: WorkerTelemetry) -> Resources:
    taken = telemetry.allocation
    return Resources(taken.cpu_cores, taken.memory_bytes, len(taken.gpu_uuids), taken.gpu_uuids)


def _available(telemetry: WorkerTelemetry) -> Resources:
    taken, capacity = telemetry.allocation, telemetry.registration.capacity
    return Resources(
        _left(capacity.cpu_cores, taken.cpu_cores),
        _left(capacity.memory_bytes, taken.memory_bytes),
        _left(capacity.gpu_count, len(taken.gpu_uuids)),
        tuple(uuid for uuid in capacity.gpu_uuids if uuid not in taken.gpu_uuids),
    )


def _left(total: float | None, taken: float) -> Any:
    # In thousandths, as cores are counted out; what is taken may exceed what a worker came back with.
    return None if total is None else max(round(total - taken, 3), 0)


def _unsupported_reason(telemetry: WorkerTelemetry) -> str | None:
    support = telemetry.task_support
    if support is None:
        return "it only reports telemetry"
    return None if support.available else support.reason or "it cannot run tasks"


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
