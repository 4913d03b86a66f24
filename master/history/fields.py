"""The fields of the history: where each comes from in an update, and in Prometheus.

They are few and fixed, so that a point has a fixed size. The order is that of stored points: new fields go to the end,
with a new version in ``points``.
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
    return max(
        [
            min(100.0 * item.used_bytes / item.size_bytes, 100.0)
            for item in telemetry.reading.filesystems
            if item.used_bytes is not None and item.size_bytes
        ],
        default=None,
    )


def hottest_gpu_celsius(telemetry: WorkerTelemetry) -> float | None:
    temperatures = [gpu.temperature_celsius for gpu in telemetry.reading.gpus]
    return max([celsius for celsius in temperatures if celsius is not None], default=None)


class Gauge(NamedTuple):
    """``unit`` is what REST shows. In ``promql``, ``{0}`` stands for the selector of the worker."""

    name: str
    unit: str
    read: Callable[[WorkerTelemetry], float | None]
    promql: str


class Rate(NamedTuple):
    """The rate of a counter of each disk or network interface, summed over them; ``label`` names the device."""

    name: str
    unit: str
    counter: str
    label: str


GAUGES = (
    Gauge(
        "cpu_usage", "percent",
        lambda telemetry: telemetry.cpu_usage,
        "100 * max(fleetpulse_worker_cpu_usage_ratio{0})",
    ),
    Gauge(
        "memory_usage", "percent",
        lambda telemetry: telemetry.memory_usage,
        "100 * max(fleetpulse_worker_memory_used_bytes{0}) / max(fleetpulse_worker_memory_size_bytes{0} > 0)",
    ),
    Gauge(
        "gpu_usage", "percent",
        lambda telemetry: telemetry.gpu_usage,
        "100 * avg(max by (gpu, uuid) (fleetpulse_worker_gpu_utilization_ratio{0}))",
    ),
    Gauge(
        "filesystem_usage", "percent",
        fullest_filesystem_percent,
        "100 * max(fleetpulse_worker_filesystem_used_bytes{0} / (fleetpulse_worker_filesystem_size_bytes{0} > 0))",
    ),
    Gauge(
        "memory_used_bytes", "bytes",
        lambda telemetry: telemetry.reading.memory.used_bytes,
        "max(fleetpulse_worker_memory_used_bytes{0})",
    ),
    Gauge("load1", "processes", lambda telemetry: telemetry.reading.load.load1, "max(fleetpulse_worker_load1{0})"),
    Gauge(
        "running_tasks", "tasks",
        lambda telemetry: len(telemetry.reading.running_tasks),
        "max(fleetpulse_worker_running_tasks{0})",
    ),
    Gauge(
        "gpu_temperature_celsius", "celsius",
        hottest_gpu_celsius,
        "max(fleetpulse_worker_gpu_temperature_celsius{0})",
    ),
)  # fmt: skip

# In the order of ``CounterIncreases.amounts``.
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
_NO_RATES = (None,) * len(RATES)


class CounterIncreases(NamedTuple):
    """``amounts``: bytes read, written, received, transmitted within ``seconds``; ``None`` where not known."""

    seconds: float
    amounts: tuple[float | None, float | None, float | None, float | None]


def sample_of(telemetry: WorkerTelemetry, increases: CounterIncreases | None) -> Sample:
    """``increases`` are those since the worker's last update; ``None``: they are not known."""
    gauges = [read(telemetry) for read in _READ_GAUGES]
    if increases is None:
        return (*gauges, *_NO_RATES)
    seconds = increases.seconds
    return (*gauges, *[None if amount is None else amount / seconds for amount in increases.amounts])


class Counters:
    """The counters of one worker's disks and network interfaces at its last update.

    Times are those of receipt, by the master's wall clock. No rate is computed over more than ``max_seconds``, because
    the worker was not heard meanwhile, or when the clock was set back.
    """

    __slots__ = ("_disks", "_max_seconds", "_networks", "_time")

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._time: float | None = None
        self._disks: Mapping[str, _Pair] = {}
        self._networks: Mapping[str, _Pair] = {}

    def advance(self, telemetry: WorkerTelemetry) -> CounterIncreases | None:
        """Returns what was added since the last call."""
        reading = telemetry.reading
        disks = {item.device: (item.read_bytes, item.written_bytes) for item in reading.disk_devices}
        networks = {
            item.interface: (item.received_bytes, item.transmitted_bytes) for item in reading.network_interfaces
        }
        increases = None
        if self._time is not None and 0.0 < telemetry.last_update - self._time <= self._max_seconds:
            seconds = telemetry.last_update - self._time
            increases = CounterIncreases(seconds, (*_added(self._disks, disks), *_added(self._networks, networks)))
        self._time, self._disks, self._networks = telemetry.last_update, disks, networks
        return increases


def _added(before: Mapping[str, _Pair], now: Mapping[str, _Pair]) -> tuple[float | None, float | None]:
    pairs = [(before[name], counts) for name, counts in now.items() if name in before]
    return _total((old[0], new[0]) for old, new in pairs), _total((old[1], new[1]) for old, new in pairs)


def _total(pairs: Iterable[_Pair]) -> float | None:
    """Of the devices that were read both times. A counter that fell has begun again at 0."""
    known = [new - old if new >= old else new for old, new in pairs if old is not None and new is not None]
    return float(sum(known)) if known else None
