"""The fields of the history: where each comes from in an update, and in Prometheus.

They are few and fixed, so that a point has a fixed size. Stored points have them in this order: new fields go to the
end, with a new version in ``points``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fleetpulse.master.telemetry.records import WorkerTelemetry

Sample = tuple[float | None, ...]
"""A value for each field, in the order of ``FIELDS``. ``None``: the reading is missing."""

_Pair = tuple[int | None, int | None]
"""Read and written, or received and transmitted, since boot."""


def fullest_filesystem_percent(telemetry: WorkerTelemetry) -> float | None:
    """Space in use on the fullest filesystem, percent of its size; ``None`` where none gives both."""
    used = [
        min(100.0 * item.used_bytes / item.size_bytes, 100.0)
        for item in telemetry.reading.filesystems
        if item.used_bytes is not None and item.size_bytes
    ]
    return max(used, default=None)


def hottest_gpu_celsius(telemetry: WorkerTelemetry) -> float | None:
    temperatures = [gpu.temperature_celsius for gpu in telemetry.reading.gpus]
    return max([celsius for celsius in temperatures if celsius is not None], default=None)


class Gauge(NamedTuple):
    """``unit`` is what REST shows. In ``promql``, ``{name}`` stands for ``fleetpulse_worker_name`` of the worker."""

    name: str
    unit: str
    read: Callable[[WorkerTelemetry], float | None]
    promql: str


class Rate(NamedTuple):
    """The rate of a counter, summed over the devices that are in its ``label``."""

    name: str
    unit: str
    counter: str
    label: str


GAUGES = (
    Gauge("cpu_usage", "percent", lambda update: update.cpu_usage, "100 * max({cpu_usage_ratio})"),
    Gauge(
        "memory_usage",
        "percent",
        lambda update: update.memory_usage,
        "100 * max({memory_used_bytes}) / max({memory_size_bytes} > 0)",
    ),
    Gauge(
        "gpu_usage",
        "percent",
        lambda update: update.gpu_usage,
        "100 * avg(max by (gpu, uuid) ({gpu_utilization_ratio}))",
    ),
    Gauge(
        "filesystem_usage",
        "percent",
        fullest_filesystem_percent,
        "100 * max({filesystem_used_bytes} / ({filesystem_size_bytes} > 0))",
    ),
    Gauge("memory_used_bytes", "bytes", lambda update: update.reading.memory.used_bytes, "max({memory_used_bytes})"),
    Gauge("load1", "processes", lambda update: update.reading.load.load1, "max({load1})"),
    Gauge("running_tasks", "tasks", lambda update: len(update.reading.running_tasks), "max({running_tasks})"),
    Gauge("gpu_temperature_celsius", "celsius", hottest_gpu_celsius, "max({gpu_temperature_celsius})"),
)

# In the order of what ``Counters`` returns.
RATES = (
    Rate("disk_read_bytes_per_second", "bytes/second", "disk_read_bytes_total", "device"),
    Rate("disk_written_bytes_per_second", "bytes/second", "disk_written_bytes_total", "device"),
    Rate("network_received_bytes_per_second", "bytes/second", "network_received_bytes_total", "interface"),
    Rate("network_transmitted_bytes_per_second", "bytes/second", "network_transmitted_bytes_total", "interface"),
)

FIELDS: tuple[Gauge | Rate, ...] = (*GAUGES, *RATES)
FIELD_BY_NAME = {field.name: field for field in FIELDS}
INDEX_BY_NAME = {field.name: index for index, field in enumerate(FIELDS)}

_READ_GAUGES = tuple(gauge.read for gauge in GAUGES)
_NO_RATES: Sample = (None,) * len(RATES)


class SampleReader:
    """Makes samples of one worker's updates. Remembers the counters of its disks and network interfaces for the rates.

    Times are those of receipt, by the master's wall clock. There is no rate over more than ``max_seconds``, because the
    worker was not heard meanwhile, nor when the clock was set back.
    """

    __slots__ = ("_disks", "_max_seconds", "_networks", "_time")

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._time: float | None = None
        self._disks: Mapping[str, _Pair] = {}
        self._networks: Mapping[str, _Pair] = {}

    def sample(self, telemetry: WorkerTelemetry) -> tuple[Sample, float]:
        """Returns a sample, and the seconds since the last update that its rates are of; 0 when it has none."""
        reading = telemetry.reading
        disks = {item.device: (item.read_bytes, item.written_bytes) for item in reading.disk_devices}
        networks = {one.interface: (one.received_bytes, one.transmitted_bytes) for one in reading.network_interfaces}
        rates, seconds = _NO_RATES, 0.0
        if self._time is not None and 0.0 < telemetry.last_update - self._time <= self._max_seconds:
            seconds = telemetry.last_update - self._time
            rates = (*_rates(self._disks, disks, seconds), *_rates(self._networks, networks, seconds))
        self._time, self._disks, self._networks = telemetry.last_update, disks, networks
        return (*[read(telemetry) for read in _READ_GAUGES], *rates), seconds


def _rates(before: Mapping[str, _Pair], now: Mapping[str, _Pair], seconds: float) -> tuple[float | None, float | None]:
    pairs = [(before[name], counts) for name, counts in now.items() if name in before]
    return _rate([(old[0], new[0]) for old, new in pairs], seconds), _rate(
        [(old[1], new[1]) for old, new in pairs], seconds
    )


def _rate(pairs: Iterable[_Pair], seconds: float) -> float | None:
    """Of the devices that were read both times. A counter that fell has begun again at 0."""
    known = [new - old if new >= old else new for old, new in pairs if old is not None and new is not None]
    return sum(known) / seconds if known else None
