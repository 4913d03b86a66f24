"""The readings whose history is kept: a small fixed set, so that a point has a fixed size."""

from typing import NamedTuple

from fleetpulse.master.history.counters import CounterIncreases
from fleetpulse.master.telemetry.records import Filesystem, Reading, WorkerTelemetry

Sample = tuple[float | None, ...]
"""A value a field, in the order of ``FIELDS``. ``None``: the reading is missing."""


class Field(NamedTuple):
    """A column of the history. ``unit`` is what REST says."""

    name: str
    unit: str


GAUGES = (
    Field("cpu_usage", "percent"),
    Field("memory_usage", "percent"),
    Field("gpu_usage", "percent"),
    Field("filesystem_usage", "percent"),
    Field("memory_used_bytes", "bytes"),
    Field("load1", "processes"),
    Field("running_tasks", "tasks"),
    Field("gpu_temperature_celsius", "celsius"),
)

RATES = (
    Field("disk_read_bytes_per_second", "bytes/second"),
    Field("disk_written_bytes_per_second", "bytes/second"),
    Field("network_received_bytes_per_second", "bytes/second"),
    Field("network_transmitted_bytes_per_second", "bytes/second"),
)
"""Each is made of a counter of ``CounterIncreases``, in the same order."""

FIELDS = (*GAUGES, *RATES)
"""What is stored depends on this order: new fields go to the end, with a new version in ``points``."""

FIELD_BY_NAME = {field.name: field for field in FIELDS}
INDEX_BY_NAME = {field.name: index for index, field in enumerate(FIELDS)}


def sample_of(telemetry: WorkerTelemetry, increases: CounterIncreases | None) -> Sample:
    """What an update says. ``increases`` are those since the worker's update before; ``None``: they are not known."""
    reading = telemetry.reading
    gauges = (
        telemetry.cpu_usage,
        telemetry.memory_usage,
        telemetry.gpu_usage,
        fullest_filesystem_percent(reading.filesystems),
        reading.memory.used_bytes,
        reading.load.load1,
        len(reading.running_tasks),
        hottest_gpu_celsius(reading),
    )
    if increases is None:
        return (*gauges, None, None, None, None)
    seconds = increases.seconds
    return (*gauges, *(None if amount is None else amount / seconds for amount in increases.amounts))


def fullest_filesystem_percent(filesystems: tuple[Filesystem, ...]) -> float | None:
    """Space in use on the fullest filesystem, percent of its size; ``None`` where none gives both."""
    return max(
        [
            min(100.0 * item.used_bytes / item.size_bytes, 100.0)
            for item in filesystems
            if item.used_bytes is not None and item.size_bytes
        ],
        default=None,
    )


def hottest_gpu_celsius(reading: Reading) -> float | None:
    return max([gpu.temperature_celsius for gpu in reading.gpus if gpu.temperature_celsius is not None], default=None)
