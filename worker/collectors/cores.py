"""Use and frequency of each core, while somebody asks for them; otherwise nothing is read."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.proto.fields import MAX_CORES
from fleetpulse.worker.collectors import PROC, SYS, left_out, read_number, read_text
from fleetpulse.worker.collectors.cpu import parse_cpu_times, usage_percent

MAX_SECONDS = 3600.0


class CoreCollector:
    """``cores`` for so long as asked for; the use of a core is absent in the first of these readings."""

    name = "cores"

    def __init__(self, proc: Path = PROC, sys: Path = SYS, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` runs in seconds."""
        self._stat, self._cpus, self._clock = proc / "stat", sys / "devices" / "system" / "cpu", clock
        self._until: float | None = None
        self._previous: dict[int, Mapping[str, float]] = {}

    def report_for(self, seconds: float) -> None:
        """Reads from now on for so long, an hour at most. Called from any thread."""
        self._until = self._clock() + max(0.0, min(seconds, MAX_SECONDS))

    def collect(self) -> pb.Heartbeat:
        """Raises ``OSError`` where the machine does not show its cores."""
        until = self._until
        if until is None or self._clock() > until:
            self._previous = {}
            return pb.Heartbeat()
        previous, self._previous = self._previous, self._read()
        numbers = sorted(self._previous)
        cores = [
            make(
                pb.Core,
                core=number,
                usage_percent=usage_percent(previous[number], self._previous[number]) if number in previous else None,
                frequency_hertz=self._frequency(number),
            )
            for number in numbers[:MAX_CORES]
        ]
        return pb.Heartbeat(cores=cores, left_out=left_out(self.name, len(numbers) - len(cores)))

    def _read(self) -> dict[int, Mapping[str, float]]:
        times = {}
        for line in read_text(self._stat).splitlines():
            name, *columns = line.split() or [""]
            if name.startswith("cpu") and name[3:].isdecimal() and (found := parse_cpu_times(columns)) is not None:
                times[int(name[3:])] = found
        return times

    def _frequency(self, core: int) -> float | None:
        kilohertz = read_number(self._cpus / f"cpu{core}" / "cpufreq" / "scaling_cur_freq")
        return None if kilohertz is None else kilohertz * 1000.0
