"""Counters as increases: what disks and network interfaces moved between two updates of a worker."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fleetpulse.master.telemetry.records import WorkerTelemetry

_Pair = tuple[int | None, int | None]
"""Read and written, or received and transmitted, since boot."""


class CounterIncreases(NamedTuple):
    """``amounts``: bytes read, written, received, transmitted within ``seconds``; ``None`` where nothing tells."""

    seconds: float
    amounts: tuple[float | None, float | None, float | None, float | None]


class Counters:
    """The counters of one worker at its last update.

    Times are those of receipt, by the master's wall clock. Over more than ``longest_seconds``, or when that clock was
    set back, no rate is told: it would be of a time in which the worker was not heard.
    """

    __slots__ = ("_disks", "_longest_seconds", "_networks", "_time")

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._time: float | None = None
        self._disks: Mapping[str, _Pair] = {}
        self._networks: Mapping[str, _Pair] = {}

    def advance(self, telemetry: WorkerTelemetry) -> CounterIncreases | None:
        """What was added since the last call."""
        reading = telemetry.reading
        disks = {item.device: (item.read_bytes, item.written_bytes) for item in reading.disk_devices}
        networks = {
            item.interface: (item.received_bytes, item.transmitted_bytes) for item in reading.network_interfaces
        }
        increases = None
        if self._time is not None and 0.0 < telemetry.last_update - self._time <= self._longest_seconds:
            seconds = telemetry.last_update - self._time
            increases = CounterIncreases(seconds, (*_added(self._disks, disks), *_added(self._networks, networks)))
        self._time, self._disks, self._networks = telemetry.last_update, disks, networks
        return increases


def _added(before: Mapping[str, _Pair], now: Mapping[str, _Pair]) -> tuple[float | None, float | None]:
    pairs = [(before[name], counts) for name, counts in now.items() if name in before]
    return _total((old[0], new[0]) for old, new in pairs), _total((old[1], new[1]) for old, new in pairs)


def _total(pairs: Iterable[_Pair]) -> float | None:
    """Of the devices that told both times. A counter that fell has begun again at 0."""
    known = [new - old if new >= old else new for old, new in pairs if old is not None and new is not None]
    return float(sum(known)) if known else None
