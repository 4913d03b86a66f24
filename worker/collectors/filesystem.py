"""Space on the real filesystems, as ``df`` shows it; in a container on those mounted in the container."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import MAX_ITEMS, CollectorError, valid_utf8

_LOGGER = logging.getLogger(__name__)

_READ_ONLY_IMAGES = frozenset({"squashfs", "erofs", "cramfs", "iso9660", "udf"})
"""Full by design: an alert on them would never end."""

_LAYERED = frozenset({"overlay", "aufs"})
"""A container's view of a filesystem that is counted already."""

_LOOP_DEVICE = re.compile(r"/dev/loop\d+(p\d+)?")


class NothingReadable(CollectorError):
    """The machine has filesystems, and none of them could be read."""


class Partition(Protocol):
    """One mount, as ``psutil.disk_partitions(all=False)`` returns it: no pseudo and no network filesystem."""

    @property
    def device(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...


class Usage(Protocol):
    """Bytes, as ``psutil.disk_usage`` returns them: ``used`` leaves out the blocks reserved for root, like ``df``."""

    @property
    def total(self) -> int: ...
    @property
    def used(self) -> int: ...


def choose_mountpoints(partitions: Iterable[Partition]) -> list[str]:
    """One mountpoint for each device, and ``/`` in any case; sorted, the first 16.

    A device that is mounted more than once (bind mounts, subvolumes) counts at the shortest path.
    """
    by_device: dict[str, str] = {}
    for partition in partitions:
        if partition.fstype in _READ_ONLY_IMAGES | _LAYERED or _LOOP_DEVICE.fullmatch(partition.device):
            continue
        known = by_device.setdefault(partition.device, partition.mountpoint)
        by_device[partition.device] = min(known, partition.mountpoint, key=lambda path: (len(path), path))
    return sorted({"/", *by_device.values()})[:MAX_ITEMS]


class FilesystemCollector:
    """``filesystems``, sorted by mountpoint, without those that cannot be read; ``NothingReadable`` if none can.

    Network filesystems are not reported: they belong to another machine, and a dead server would hang the reading.
    """

    name = "filesystem"

    def __init__(
        self,
        read_partitions: Callable[[], Sequence[Partition]] = psutil.disk_partitions,
        read_usage: Callable[[str], Usage] = psutil.disk_usage,
        is_directory: Callable[[str], bool] = os.path.isdir,
    ) -> None:
        self._read_partitions = read_partitions
        self._read_usage = read_usage
        self._is_directory = is_directory

    def collect(self) -> pb.Heartbeat:
        # Container tools mount single files, /etc/hosts for one, out of a filesystem of the host.
        mounts = [partition for partition in self._read_partitions() if self._is_directory(partition.mountpoint)]
        readings = {mountpoint: self._read(mountpoint) for mountpoint in choose_mountpoints(mounts)}
        filesystems = [reading for reading in readings.values() if reading is not None]
        if not filesystems:
            raise NothingReadable(f"no filesystem could be read: {', '.join(map(valid_utf8, readings))}")
        return pb.Heartbeat(filesystems=filesystems)

    def _read(self, mountpoint: str) -> pb.Filesystem | None:
        try:
            usage = self._read_usage(mountpoint)
        except OSError as exc:
            _LOGGER.debug("filesystem %s is left out: %s", valid_utf8(mountpoint), exc)
            return None
        if usage.total <= 0:
            return None  # a pseudo filesystem, which df leaves out too
        return pb.Filesystem(mountpoint=valid_utf8(mountpoint), used_bytes=max(0, usage.used), size_bytes=usage.total)
