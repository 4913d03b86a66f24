"""CPU usage of the whole machine; in a container that of the host."""

from collections.abc import Callable, Mapping

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb

_COUNTED_ELSEWHERE = frozenset({"guest", "guest_nice"})
"""Linux adds a guest's time to ``user`` and ``nice`` too (proc_stat(5))."""

_IDLE = frozenset({"idle", "iowait"})
"""A core that waits for a disk is free to run something else."""


def read_cpu_times() -> Mapping[str, float]:
    """Seconds that all cores together have spent in each state since boot."""
    return psutil.cpu_times()._asdict()


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
        except OSError:  # the worker must start all the same; collect() raises it if it lasts
            self._previous = None

    def collect(self) -> pb.Heartbeat:
        """``usage_percent`` is absent when the kernel has counted no time since the previous reading."""
        now = self._read_times()
        usage = None if self._previous is None else usage_percent(self._previous, now)
        self._previous = now
        return pb.Heartbeat(cpu=pb.Cpu(usage_percent=usage, logical_cores=self._logical_cores()))
