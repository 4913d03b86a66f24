"""Pressure stall information: how long processes have waited for CPU, memory and I/O; in a container of the host.

https://docs.kernel.org/accounting/psi.html
"""

from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors import PROC, read_text

_KINDS = {
    ("cpu", "some"): "cpu_waiting",
    ("memory", "some"): "memory_waiting",
    ("memory", "full"): "memory_stalled",
    ("io", "some"): "io_waiting",
    ("io", "full"): "io_stalled",
}
"""``full`` of the CPU means nothing for a whole machine."""


def parse_pressure(text: str) -> dict[str, tuple[float, float]]:
    """By ``some`` and ``full``: the mean of 10 s in percent, and the total in seconds. Odd lines are skipped."""
    found = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.partition("=")[::2] for pair in pairs)
        try:
            found[kind] = float(values["avg10"]), int(values["total"]) / 1e6
        except (KeyError, ValueError):
            continue
    return found


class PressureCollector:
    """``pressure``; absent where the kernel does not measure it, which is no failure."""

    name = "pressure"

    def __init__(self, proc: Path = PROC) -> None:
        self._folder = proc / "pressure"

    def collect(self) -> pb.Heartbeat:
        fields = {}
        for resource in ("cpu", "memory", "io"):
            try:
                kinds = parse_pressure(read_text(self._folder / resource))
            except OSError:  # no such file, or switched off at boot: the file is there and cannot be read
                continue
            for kind, (percent, seconds) in kinds.items():
                if name := _KINDS.get((resource, kind)):
                    fields[f"{name}_percent"], fields[f"{name}_seconds"] = min(percent, 100.0), seconds
        return pb.Heartbeat(pressure=make(pb.Pressure, **fields)) if fields else pb.Heartbeat()
