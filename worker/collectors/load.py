"""Load averages of the whole machine, also in a container."""

import os
from collections.abc import Callable

from fleetpulse.proto import fleetpulse_pb2 as pb


class LoadCollector:
    """``load``: means over 1, 5 and 15 minutes, of the machine and not of one core. ``OSError`` where there is none."""

    name = "load"

    def __init__(self, read_load: Callable[[], tuple[float, float, float]] = os.getloadavg) -> None:
        self._read_load = read_load

    def collect(self) -> pb.Heartbeat:
        load1, load5, load15 = self._read_load()
        return pb.Heartbeat(load=pb.Load(load1=load1, load5=load5, load15=load15))
