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
    """``uptime_seconds``; absent where a step of the wall clock puts the boot into the future."""

    name = "uptime"

    def __init__(self, boot_clock: Callable[[], float] = seconds_since_boot) -> None:
        self._boot_clock = boot_clock

    def collect(self) -> pb.Heartbeat:
        uptime = self._boot_clock()
        return pb.Heartbeat(uptime_seconds=uptime if uptime >= 0.0 else None)
