"""Collectors that are quicker than those of ``prometheus_client``."""

import math
import resource
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_OPEN_FILES = Path("/proc/self/fd")


class HubCounter(Collector):
    """A counter for code that runs on the hub only.

    A plain number: prometheus_client's takes a lock and some microseconds, which is for threads. What every heartbeat
    touches is touched by one greenlet at a time.
    """

    __slots__ = ("_documentation", "_name", "value")

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self.value = 0
        registry.register(self)

    def inc(self, count: int = 1) -> None:
        self.value += count

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self.value)


class HubHistogram(Collector):
    """A histogram for code that runs on the hub only."""

    __slots__ = ("_bounds", "_counts", "_documentation", "_name", "_sum")

    def __init__(
        self, name: str, documentation: str, registry: CollectorRegistry, bounds: tuple[float, ...] = FAST_SECONDS
    ) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        # A bucket holds what is less than or equal to its bound.
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append((str(bound).replace("inf", "+Inf"), total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class ProcessMetrics(Collector):
    """The master's process, as the kernel sees it, under the names that every client of Prometheus gives it.

    Costs the same with ten thousand streams open; prometheus_client's collector lists them all on each scrape.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._process = psutil.Process()
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        with self._process.oneshot():
            memory, times = self._process.memory_info(), self._process.cpu_times()
            started = self._process.create_time()
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.", memory.vms)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", memory.rss)
        yield GaugeMetricFamily("process_start_time_seconds", "Start time of the process in Unix seconds.", started)
        yield CounterMetricFamily(
            "process_cpu_seconds_total", "User and system CPU time spent in seconds.", times.user + times.system
        )
        yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", self._open_files())
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield GaugeMetricFamily(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            math.inf if most == resource.RLIM_INFINITY else most,
        )

    def _open_files(self) -> int:
        # Since Linux 6.2 the size of the folder; before that they are counted, with the one that they are listed by.
        return _OPEN_FILES.stat().st_size or self._process.num_fds() - 1
