"""The fields of the history: where each comes from in an update, and in Prometheus.

They are few and fixed, so that a point has a fixed size. Stored points have them in this order: new fields go to the
end, with a new version in ``points``.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple

from fleetpulse.master.telemetry.readings import (
    DiskDevice,
    Filesystem,
    Gpu,
    NetworkInterface,
    Reading,
    mean_gpu_utilization,
)
from fleetpulse.master.telemetry.records import WorkerTelemetry

Sample = tuple[float | None, ...]
"""A value for each field, in the order of ``FIELDS``. ``None``: the reading is missing."""


class Gauge(NamedTuple):
    """``unit`` is what REST shows. In ``promql``, ``{name}`` stands for ``fleetpulse_worker_name`` of the worker."""

    name: str
    unit: str
    promql: str


class Rate(NamedTuple):
    """The rate of a counter, summed over the devices that are in its ``label``."""

    name: str
    unit: str
    counter: str
    label: str


# In the order of what ``_gauges`` returns.
GAUGES = (
    Gauge("cpu_usage", "percent", "100 * max({cpu_usage_ratio})"),
    Gauge("memory_usage", "percent", "100 * max({memory_used_bytes}) / max({memory_size_bytes} > 0)"),
    Gauge("gpu_usage", "percent", "100 * avg(max by (gpu, uuid) ({gpu_utilization_ratio}))"),
    Gauge(
        "filesystem_usage",
        "percent",
        "100 * max({filesystem_used_bytes} / ({filesystem_used_bytes} + {filesystem_available_bytes} > 0)"
        " or {filesystem_used_bytes} / ({filesystem_size_bytes} > 0))",
    ),
    Gauge("memory_used_bytes", "bytes", "max({memory_used_bytes})"),
    Gauge("load1", "processes", "max({load1})"),
    Gauge("running_tasks", "tasks", "max({running_tasks})"),
    Gauge("gpu_temperature_celsius", "celsius", "max({gpu_temperature_celsius})"),
)

# In the order of what ``SampleReader`` appends.
RATES = (
    Rate("disk_read_bytes_per_second", "bytes/second", "disk_read_bytes_total", "device"),
    Rate("disk_written_bytes_per_second", "bytes/second", "disk_written_bytes_total", "device"),
    Rate("network_received_bytes_per_second", "bytes/second", "network_received_bytes_total", "interface"),
    Rate("network_transmitted_bytes_per_second", "bytes/second", "network_transmitted_bytes_total", "interface"),
)

FIELDS: tuple[Gauge | Rate, ...] = (*GAUGES, *RATES)
FIELD_BY_NAME = {field.name: field for field in FIELDS}
INDEX_BY_NAME = {field.name: index for index, field in enumerate(FIELDS)}

_NO_RATES: Sample = (None,) * len(RATES)

_Row = tuple[str, int | None, int | None]
"""A device, and its counters since boot: read and written, or received and transmitted."""

_disk_row: Callable[[object], _Row] = attrgetter("device", "read_bytes", "written_bytes")
_network_row: Callable[[object], _Row] = attrgetter("interface", "received_bytes", "transmitted_bytes")


class SampleReader:
    """Makes samples of one worker's updates. Remembers the counters of its disks and network interfaces for the rates,
    as the records that the live table has too.

    Times are those of receipt, by the master's wall clock. There is no rate over more than ``max_seconds``, because the
    worker was not heard meanwhile, nor when the clock was set back.
    """

    __slots__ = ("_disks", "_max_seconds", "_networks", "_time")

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._time: float | None = None
        self._disks: tuple[DiskDevice, ...] = ()
        self._networks: tuple[NetworkInterface, ...] = ()

    def sample(self, telemetry: WorkerTelemetry) -> tuple[Sample, float]:
        """Returns a sample, and the seconds since the last update that its rates are of; 0 when it has none."""
        reading, now = telemetry.reading, telemetry.last_update
        disks, networks = reading.disk_devices, reading.network_interfaces
        rates, seconds = _NO_RATES, 0.0
        if self._time is not None and 0.0 < now - self._time <= self._max_seconds:
            seconds = now - self._time
            rates = (
                *_rates(map(_disk_row, self._disks), map(_disk_row, disks), seconds),
                *_rates(map(_network_row, self._networks), map(_network_row, networks), seconds),
            )
        self._time, self._disks, self._networks = now, disks, networks
        return _gauges(reading) + rates, seconds


def _gauges(reading: Reading) -> Sample:
    """One expression a field and no call a field: this runs for every heartbeat."""
    memory = reading.memory
    used, size = memory.used_bytes, memory.size_bytes
    gpu_usage = hottest = None
    if gpus := reading.gpus:
        gpu_usage, hottest = mean_gpu_utilization(gpus), hottest_gpu_celsius(gpus)
    return (
        reading.cpu.usage_percent,
        None if used is None or not size else min(100.0 * used / size, 100.0),
        gpu_usage,
        fullest_filesystem_percent(reading.filesystems),
        used,
        reading.load.load1,
        len(reading.running_tasks),
        hottest,
    )


def fullest_filesystem_percent(filesystems: Iterable[Filesystem]) -> float | None:
    """The share in use of the fullest filesystem, percent; ``None`` where none gives it."""
    shares = [share for item in filesystems if (share := item.used_ratio) is not None]
    return 100.0 * max(shares) if shares else None


def hottest_gpu_celsius(gpus: Iterable[Gpu]) -> float | None:
    return max([gpu.temperature_celsius for gpu in gpus if gpu.temperature_celsius is not None], default=None)


def _rates(before: Iterable[_Row], now: Iterable[_Row], seconds: float) -> tuple[float | None, float | None]:
    """Of the devices that were read both times. A counter that fell has begun again at 0."""
    known = {row[0]: row for row in before}
    first: int | None = None
    second: int | None = None
    for row in now:
        if (old := known.get(row[0])) is not None:
            _, one, other = row
            _, old_one, old_other = old
            if one is not None and old_one is not None:
                first = (first or 0) + (one - old_one if one >= old_one else one)
            if other is not None and old_other is not None:
                second = (second or 0) + (other - old_other if other >= old_other else other)
    return None if first is None else first / seconds, None if second is None else second / seconds
