"""I/O counters of the physical disks; in a container the host's, because ``/proc/diskstats`` knows no namespaces."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import MAX_ITEMS, left_out

_SECTOR_BYTES = 512
"""The unit of ``/proc/diskstats``, whatever the sector size of the device (Documentation/block/stat.rst)."""

_NAME, _SECTORS_READ, _SECTORS_WRITTEN = 2, 5, 9
"""Columns, from 0 (Documentation/admin-guide/iostats.rst)."""


class DiskCounters(NamedTuple):
    """Bytes since boot."""

    device: str
    read_bytes: int
    written_bytes: int


def parse_diskstats(text: str) -> Iterator[DiskCounters]:
    """Every line of ``/proc/diskstats``: disks, partitions, loop devices. ``ValueError`` on a bad number.

    Skips a line that is too short: Linux before 2.6.25 wrote partitions so.
    """
    for line in text.splitlines():
        columns = line.split()
        if len(columns) > _SECTORS_WRITTEN:
            yield DiskCounters(
                device=columns[_NAME],
                read_bytes=int(columns[_SECTORS_READ]) * _SECTOR_BYTES,
                written_bytes=int(columns[_SECTORS_WRITTEN]) * _SECTOR_BYTES,
            )


class DiskCollector:
    """``disk_devices``, sorted by name: disks with hardware, real or a hypervisor's, behind them.

    Such a disk has ``/sys/block/<name>/device``. Partitions, loop devices, RAM disks, RAID and LVM volumes have none;
    their I/O is counted at the disk below. A machine without disks is no error, one without ``/proc/diskstats`` is
    (``FileNotFoundError``).
    """

    name = "disk"

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._diskstats = proc / "diskstats"
        self._block = sys / "block"

    def collect(self) -> pb.Heartbeat:
        text = self._diskstats.read_text(encoding="utf-8", errors="replace")
        disks = sorted(disk for disk in parse_diskstats(text) if self._is_physical(disk.device))
        devices = [pb.DiskDevice(**disk._asdict()) for disk in disks[:MAX_ITEMS]]
        return pb.Heartbeat(disk_devices=devices, left_out=left_out(self.name, len(disks) - len(devices)))

    def _is_physical(self, device: str) -> bool:
        # In sysfs the name of cciss/c0d0 is cciss!c0d0.
        return (self._block / device.replace("/", "!") / "device").exists()
