"""Time since the machine booted; in a container since the host did, save where the container has a time namespace."""

import time
from collections.abc import Callable

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb


def seconds_since_boot() -> float:
    """Seconds, time asleep included. On Linux a step of the wall clock does not change it; elsewhere it may."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - psutil.boot_time()


class UptimeCollector:
    """``uptime_seconds``; absent where a stepped wall clock puts the boot into the future."""

    name = "uptime"

    def __init__(self, boot_clock: Callable[[], float] = seconds_since_boot) -> None:
        self._boot_clock = boot_clock

    def collect(self) -> pb.Heartbeat:
        uptime = self._boot_clock()
        return pb.Heartbeat(uptime_seconds=uptime if uptime >= 0.0 else None)
