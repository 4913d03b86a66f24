"""What the kernel says of the master's process, under the names that every client of Prometheus gives it."""

import math
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_OPEN_FILES = Path("/proc/self/fd")


class ProcessMetrics(Collector):
    """Costs the same with ten thousand streams open; prometheus_client's collector lists them all on each scrape."""

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
