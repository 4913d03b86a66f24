"""I/O counters of the machine's disks; in a container the host's, because ``/proc/diskstats`` knows no namespaces.

The disks are those that ``lsblk`` calls so, without what stands upon other disks here: ``/sys/block`` decides. A disk
has hardware behind it, real or a hypervisor's (``device``), or is a connected network block device. Partitions, loop
devices, RAM disks, RAID, LVM and ZFS volumes have none: their I/O is counted at the disk below. The paths of an NVMe
disk that has several are ``hidden``, and a drive for CDs is no disk.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors import (
    COLLECTOR_DECIDES,
    MAX_ITEMS,
    PROC,
    SYS,
    NamePatterns,
    left_out,
    read_line,
    read_number,
    read_text,
)

_SECTOR_BYTES = 512
"""The unit of ``/proc/diskstats`` and ``size``, whatever the device's sectors (Documentation/block/stat.rst)."""

_NAME, _SECTORS_READ, _SECTORS_WRITTEN = 2, 5, 9
"""Columns, from 0 (Documentation/admin-guide/iostats.rst)."""

_SCSI_TAPE, _SCSI_ROM = 1, 5
"""``device/type`` of a SCSI device, as in scsi/scsi_proto.h."""

_FACTS_SECONDS = 60.0
"""How long what ``/sys`` says is good while the same devices are there."""


class DiskCounters(NamedTuple):
    """Bytes since boot; ``None`` for a number that cannot be read."""

    device: str
    read_bytes: int | None
    written_bytes: int | None


def parse_diskstats(text: str) -> Iterator[DiskCounters]:
    """Every line of ``/proc/diskstats``: disks, partitions, loop devices.

    Skips a line that is too short: Linux before 2.6.25 wrote partitions so.
    """
    for line in text.splitlines():
        columns = line.split()
        if len(columns) > _SECTORS_WRITTEN:
            yield DiskCounters(columns[_NAME], _bytes(columns[_SECTORS_READ]), _bytes(columns[_SECTORS_WRITTEN]))


def _bytes(sectors: str) -> int | None:
    return int(sectors) * _SECTOR_BYTES if sectors.isascii() and sectors.isdecimal() else None


def disk_size(block: Path, device: str) -> int | None:
    """Bytes of a disk; ``None`` for what is no disk, or has no medium."""
    # In sysfs the name of cciss/c0d0 is cciss!c0d0.
    folder = block / device.replace("/", "!")
    if not (folder / "device").exists() and not (folder / "pid").exists():  # nbd has a pid while it is connected
        return None
    if read_line(folder / "hidden") == "1" or read_number(folder / "device" / "type") in (_SCSI_TAPE, _SCSI_ROM):
        return None
    sectors = read_number(folder / "size")
    return sectors * _SECTOR_BYTES if sectors else None


class DiskCollector:
    """``disk_devices``, sorted by name. Where there are too many, the largest are reported.

    A machine without disks is no error, one without ``/proc/diskstats`` is (``OSError``).
    """

    name = "disk"

    def __init__(
        self,
        proc: Path = PROC,
        sys: Path = SYS,
        patterns: NamePatterns = COLLECTOR_DECIDES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` runs in seconds."""
        self._diskstats, self._block, self._patterns, self._clock = proc / "diskstats", sys / "block", patterns, clock
        self._known: frozenset[str] = frozenset()
        self._sizes: dict[str, int] = {}
        """Of the disks to report; 0 for one that an operator asked for and that is none."""

        self._chosen_at = 0.0

    def collect(self) -> pb.Heartbeat:
        """Raises ``OSError``."""
        counters = {disk.device: disk for disk in parse_diskstats(read_text(self._diskstats))}
        sizes = self._choose(frozenset(counters))
        largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:MAX_ITEMS]
        devices = [
            make(pb.DiskDevice, **counters[name]._asdict(), size_bytes=sizes[name] or None) for name in sorted(largest)
        ]
        return pb.Heartbeat(disk_devices=devices, left_out=left_out(self.name, len(sizes) - len(devices)))

    def _choose(self, names: frozenset[str]) -> dict[str, int]:
        now = self._clock()
        if names != self._known or now - self._chosen_at >= _FACTS_SECONDS:
            self._sizes = {}
            for name in names:
                decision = self._patterns.decide(name)
                size = None if decision is False else disk_size(self._block, name)
                if size or decision:
                    self._sizes[name] = size or 0
            self._known, self._chosen_at = names, now
        return self._sizes
