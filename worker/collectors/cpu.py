"""CPU usage of the whole machine; in a container that of the host."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import PROC, CollectorError

_COUNTED_ELSEWHERE = frozenset({"guest", "guest_nice"})
"""Linux adds a guest's time to ``user`` and ``nice`` too (proc_stat(5))."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_IDLE = frozenset({"idle", "iowait"})
"""A core that waits for a disk is free to run something else."""


_STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
"""The columns of ``/proc/stat`` (proc_stat(5)); older kernels have fewer."""


class CpuUnreadable(CollectorError):
    """``/proc/stat`` does not begin with the times of all cores."""


def read_cpu_times(proc: Path = PROC) -> Mapping[str, float]:
    """Seconds that all cores together have spent in each state since boot. Raises ``OSError``, ``CpuUnreadable``."""
    if proc == PROC and not psutil.LINUX:
        return psutil.cpu_times()._asdict()
    with (proc / "stat").open(encoding="ascii", errors="replace") as file:
        name, *columns = file.readline().split() or [""]
    times = parse_cpu_times(columns)
    if name != "cpu" or times is None:
        raise CpuUnreadable(f"{proc}/stat does not begin with the times of all cores")
    return times


def parse_cpu_times(columns: Sequence[str]) -> Mapping[str, float] | None:
    """Seconds by state, of the numbers of a line of ``/proc/stat``; ``None`` when it has others."""
    ticks = [int(column) for column in columns if column.isdecimal()]
    if len(ticks) < len(columns) or len(ticks) < 4:
        return None
    return {state: number / _TICKS_PER_SECOND for state, number in zip(_STATES, ticks, strict=False)}


def usage_percent(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Share of the cores' time between two readings that was not idle, 0 to 100; ``None`` when no time has passed.

    Time stolen by a hypervisor counts as used.
    """
    # iowait and idle may run backwards on Linux (proc_stat(5)), so no state may count as negative.
    spent = {
        state: max(0.0, seconds - before.get(state, seconds))
        for state, seconds in after.items()
        if state not in _COUNTED_ELSEWHERE
    }
    total = sum(spent.values())
    if total <= 0.0:
        return None
    idle = sum(seconds for state, seconds in spent.items() if state in _IDLE)
    return min(100.0, max(0.0, 100.0 * (total - idle) / total))


class CpuCollector:
    """``cpu``: usage since the previous reading; the first reading covers the time since construction.

    ``psutil.cpu_percent`` is not used: it starts with 0.0 and keeps its previous reading for each thread apart.
    """

    name = "cpu"

    def __init__(
        self,
        read_times: Callable[[], Mapping[str, float]] = read_cpu_times,
        logical_cores: Callable[[], int | None] = psutil.cpu_count,
    ) -> None:
        self._read_times = read_times
        self._logical_cores = logical_cores
        self._previous: Mapping[str, float] | None
        try:
            self._previous = read_times()
        except (OSError, CpuUnreadable):  # the worker must start all the same; collect() raises it if it lasts
            self._previous = None

    def collect(self) -> pb.Heartbeat:
        """``usage_percent`` is absent when the kernel has counted no time since the previous reading."""
        now = self._read_times()
        usage = None if self._previous is None else usage_percent(self._previous, now)
        self._previous = now
        return pb.Heartbeat(cpu=pb.Cpu(usage_percent=usage, logical_cores=self._logical_cores()))
