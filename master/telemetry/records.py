"""What the master knows of a worker, as immutable snapshots around its latest readings.

``None`` always means "not known"; it is never replaced by 0.
"""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from msgspec import Struct

from fleetpulse.master.telemetry.readings import (
    Amount,
    Count,
    Reading,
    RunningTask,
    TaskSupport,
    mean_gpu_utilization,
)


class Clock(NamedTuple):
    """Where the time comes from. Liveness uses ``monotonic``; ``wall`` only stamps what people read."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


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


UpdateCallback = Callable[[str, WorkerTelemetry], None]


class TelemetryObserver(Protocol):
    """Keeps a view of the live table. Called on the hub; must not switch, block or raise."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is new, was updated, or turned active or inactive."""

    def worker_removed(self, worker_id: str) -> None:
        """The worker left the table."""
