"""Updates of workers, samples and points."""

import math
from typing import Any

from fleetpulse.master.history.fields import FIELDS, INDEX_BY_NAME, Sample
from fleetpulse.master.history.points import Bucket, Point, Points, pack
from fleetpulse.master.history.series_writer import Tier
from fleetpulse.master.telemetry.readings import Cpu, DiskDevice, NetworkInterface, Reading
from fleetpulse.master.telemetry.records import HeartbeatCounts, Registration, WorkerTelemetry

NOW = 1_700_000_100
"""A whole number of 5 minutes."""

DAY_SECONDS = 24 * 3600.0
TIERS = (Tier(15, 60, DAY_SECONDS), Tier(300, 36, 30 * DAY_SECONDS))


def telemetry(
    time: float, worker_id: str = "rack-7", *, cpu_usage_percent: float | None = None, **reading: Any
) -> WorkerTelemetry:
    """An update at that time."""
    return WorkerTelemetry(
        worker_id=worker_id,
        registration=Registration(),
        registered_at=NOW,
        is_active=True,
        last_update=time,
        reading=Reading(cpu=Cpu(cpu_usage_percent), **reading),
        counts=HeartbeatCounts(received=1),
        revision=1,
    )


def disk(read: int | None, written: int | None = None, device: str = "sda") -> dict[str, Any]:
    return {"disk_devices": (DiskDevice(device, read, written),)}


def network(received: int | None, transmitted: int | None = None) -> dict[str, Any]:
    return {"network_interfaces": (NetworkInterface("eth0", received, transmitted),)}


def sample(**values: float) -> Sample:
    """Those fields, and no other."""
    return tuple(values.get(field.name) for field in FIELDS)


def point(**values: float) -> Point:
    """Of a bucket with one sample of those fields."""
    bucket = Bucket(0)
    bucket.add(sample(**values), 1.0)
    return bucket.point()


def points(*timed: tuple[int, float]) -> Points:
    """Points of cpu_usage at those times."""
    made = Points([], bytearray())
    for time, value in timed:
        made.append(time, pack(point(cpu_usage=value)))
    return made


def values_of(data: bytes, name: str, stat: int = 0) -> list[float | None]:
    """One number of each packed point, ``None`` for one that is absent."""
    part = Points([0] * (len(data) // len(pack(point()))), bytearray(data))
    column = part.column(INDEX_BY_NAME[name] + stat * len(FIELDS))
    return [None if math.isnan(value) else value for value in column]
