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

_GIVEN_UP = frozenset({"offline", "transport-offline", "dead"})
"""``device/state`` of a SCSI device or an NVMe controller to which no I/O goes any more."""

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


class DiskFacts(NamedTuple):
    """What ``/sys/block`` says of a disk. ``trouble`` is empty for a good one, ``None`` where nothing is said."""

    size_bytes: int = 0
    trouble: str | None = None


def disk_trouble(folder: Path) -> str | None:
    """Why the disk in this folder of ``/sys/block`` is no good; no request goes to the disk."""
    state = read_line(folder / "device" / "state")
    if state in _GIVEN_UP:
        return f"the kernel has given it up: {state}"
    # eMMC, as JESD84-B51: 1 normal, 2 the reserve is used to 80 %, 3 to 90 %.
    if (read_line(folder / "device" / "pre_eol_info") or "") in ("0x02", "0x03"):
        return "its flash is worn out: little of the reserve is left"
    return None if state is None and read_line(folder / "device" / "pre_eol_info") is None else ""


def disk_size(block: Path, device: str) -> int | None:
    """Bytes of a disk; ``None`` for what is no disk, or has no medium."""
    folder = _folder(block, device)
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
        self._facts: dict[str, DiskFacts] = {}
        """Of the disks to report; without a size for one that an operator asked for and that is none."""

        self._chosen_at = 0.0

    def collect(self) -> pb.Heartbeat:
        """Raises ``OSError``."""
        counters = {disk.device: disk for disk in parse_diskstats(read_text(self._diskstats))}
        facts = self._choose(frozenset(counters))
        largest = sorted(facts, key=lambda name: (-facts[name].size_bytes, name))[:MAX_ITEMS]
        devices = [_device(counters[name], facts[name]) for name in sorted(largest)]
        return pb.Heartbeat(disk_devices=devices, left_out=left_out(self.name, len(facts) - len(devices)))

    def _choose(self, names: frozenset[str]) -> dict[str, DiskFacts]:
        now = self._clock()
        if names != self._known or now - self._chosen_at >= _FACTS_SECONDS:
            self._facts = {}
            for name in names:
                decision = self._patterns.decide(name)
                size = None if decision is False else disk_size(self._block, name)
                if size or decision:
                    self._facts[name] = DiskFacts(size or 0, disk_trouble(_folder(self._block, name)))
            self._known, self._chosen_at = names, now
        return self._facts


def _folder(block: Path, device: str) -> Path:
    # In sysfs the name of cciss/c0d0 is cciss!c0d0.
    return block / device.replace("/", "!")


def _device(counters: DiskCounters, facts: DiskFacts) -> pb.DiskDevice:
    device = make(pb.DiskDevice, **counters._asdict(), size_bytes=facts.size_bytes or None)
    if facts.trouble is not None:
        device.state, device.state_reason = ("error" if facts.trouble else "ok"), facts.trouble
    return device
