"""Temperatures and fans by the kernel's hwmon; none in most virtual machines.

https://docs.kernel.org/hwmon/sysfs-interface.html
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors import MAX_ITEMS, SYS, left_out, read_line, read_number

_INPUT = re.compile(r"(?P<sensor>(?P<kind>temp|fan)\d+)_input")
_ONE_CORE = re.compile(r"Core \d+")
_SLEEPERS = frozenset({"drivetemp"})
"""Chips that a reading may wake up."""

_READ_SECONDS = 10.0
"""Some chips take milliseconds for a reading, and temperatures are slow."""

_CELSIUS = (-100.0, 250.0)
_RPM = (0, 60_000)
"""Beyond, a chip says that nothing is connected: 255 °C, 65535 turns."""


class SensorReading(NamedTuple):
    """``name`` is chip/label, unique on the machine."""

    name: str
    temperature_celsius: float | None = None
    fan_rpm: int | None = None


def read_sensors(class_hwmon: Path) -> list[SensorReading]:
    """Of all chips, in the order of their names. What cannot be read, or says that it is none, is left out."""
    try:
        chips = sorted(class_hwmon.iterdir(), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []
    named = [(_chip_name(chip), chip) for chip in chips if not _is_asleep(chip)]
    several = Counter(name for name, _ in named)
    number: Counter[str] = Counter()
    readings = []
    for name, chip in named:
        number[name] += 1
        unique = f"{name}#{number[name]}" if several[name] > 1 else name
        readings += [reading._replace(name=f"{unique}/{reading.name}") for reading in _of_chip(chip)]
    return sorted(readings)


def _chip_name(chip: Path) -> str:
    return read_line(chip / "name") or chip.name


def _is_asleep(chip: Path) -> bool:
    return _chip_name(chip) in _SLEEPERS or read_line(chip / "device" / "power" / "runtime_status") == "suspended"


def _of_chip(chip: Path) -> list[SensorReading]:
    readings = list(_readings(chip))
    # The package is as hot as its hottest core.
    packages = [reading for reading in readings if not _ONE_CORE.fullmatch(reading.name)]
    return packages if any(reading.temperature_celsius is not None for reading in packages) else readings


def _readings(chip: Path) -> Iterator[SensorReading]:
    try:
        files = sorted(chip.iterdir(), key=lambda path: (len(path.name), path.name))
    except OSError:
        return
    seen: set[str] = set()
    for file in files:
        match = _INPUT.fullmatch(file.name)
        if match is None or read_number(chip / f"{match['sensor']}_fault") == 1:
            continue
        value, label = read_number(file), read_line(chip / f"{match['sensor']}_label") or match["sensor"]
        if value is None:
            continue
        name = label if label not in seen else f"{label} ({match['sensor']})"
        seen.add(name)
        if match["kind"] == "fan":
            if _RPM[0] <= value <= _RPM[1]:
                yield SensorReading(name, fan_rpm=value)
        elif _CELSIUS[0] < value / 1000.0 < _CELSIUS[1]:
            yield SensorReading(name, temperature_celsius=value / 1000.0)


class SensorCollector:
    """``sensors``, sorted by name and read every 10 s; where there are too many, the hottest and the fans."""

    name = "sensors"

    def __init__(self, sys: Path = SYS, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` runs in seconds."""
        self._class_hwmon, self._clock = sys / "class" / "hwmon", clock
        self._read_at: float | None = None
        self._latest = pb.Heartbeat()

    def collect(self) -> pb.Heartbeat:
        now = self._clock()
        if self._read_at is None or now - self._read_at >= _READ_SECONDS:
            readings = read_sensors(self._class_hwmon)
            first = sorted(readings, key=lambda item: -1000.0 if (heat := item.temperature_celsius) is None else -heat)
            kept = sorted(first[:MAX_ITEMS])
            self._latest = pb.Heartbeat(
                sensors=[
                    make(
                        pb.Sensor, sensor=item.name, temperature_celsius=item.temperature_celsius, fan_rpm=item.fan_rpm
                    )
                    for item in kept
                ],
                left_out=left_out(self.name, len(readings) - len(kept)),
            )
            self._read_at = now
        return self._latest
