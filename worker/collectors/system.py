"""Load averages and uptime of the whole machine, also in a container."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import PROC, read_line


def read_load(proc: Path = PROC) -> tuple[float, float, float]:
    """Raises ``OSError`` where the machine does not show its load."""
    words = (read_line(proc / "loadavg") or "").split()
    try:
        return float(words[0]), float(words[1]), float(words[2])
    except (IndexError, ValueError):
        return os.getloadavg()


_BOOT_TIME_SECONDS = 1.0
"""Two clocks are read one after the other, and NTP slews: less than this is no step."""


class LoadCollector:
    """``load``: means over 1, 5 and 15 minutes, of the machine and not of one core. ``OSError`` where there is none."""

    name = "load"

    def __init__(self, read_load: Callable[[], tuple[float, float, float]] = read_load) -> None:
        self._read_load = read_load

    def collect(self) -> pb.Heartbeat:
        load1, load5, load15 = self._read_load()
        return pb.Heartbeat(load=pb.Load(load1=load1, load5=load5, load15=load15))


def seconds_since_boot(proc: Path = PROC) -> float:
    """Seconds since boot, time asleep included. A step of the wall clock changes it everywhere but on Linux.

    In a container since the host's boot, unless lxcfs or a time namespace shows the container's own.
    """
    try:
        return float((read_line(proc / "uptime") or "").split()[0])
    except (IndexError, ValueError):
        pass
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - psutil.boot_time()


class UptimeCollector:
    """``uptime_seconds`` and ``boot_time_unix_seconds``; absent where a step of the wall clock puts the boot into the
    future.

    The boot time is the wall clock less the uptime, so it follows a clock that NTP sets after the boot. It keeps its
    value while it is true to a second.
    """

    name = "uptime"

    def __init__(
        self,
        boot_clock: Callable[[], float] = seconds_since_boot,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._boot_clock, self._wall_clock = boot_clock, wall_clock
        self._boot_time: float | None = None

    def collect(self) -> pb.Heartbeat:
        uptime, boot_time = self._boot_clock(), self.boot_time()
        return pb.Heartbeat(uptime_seconds=uptime if uptime >= 0.0 else None, boot_time_unix_seconds=boot_time)

    def boot_time(self) -> float | None:
        """When the machine booted, in Unix seconds, by the wall clock as it is now."""
        uptime = self._boot_clock()
        boot_time = round(self._wall_clock() - uptime, 2)
        if self._boot_time is None or abs(boot_time - self._boot_time) > _BOOT_TIME_SECONDS:
            self._boot_time = boot_time
        return self._boot_time if uptime >= 0.0 and self._boot_time >= 0.0 else None
