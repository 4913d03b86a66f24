"""Space on the real filesystems, as ``df`` shows it; in a container on those that are mounted in the container."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.base import MAX_ITEMS, NothingReadable, wire_text

_log = logging.getLogger(__name__)

_READ_ONLY_IMAGES = frozenset({"squashfs", "erofs", "cramfs", "iso9660", "udf"})
"""Full by design: an alert on them would never end."""

_LAYERED = frozenset({"overlay", "aufs"})
"""A container's view of a filesystem that is counted already."""

_LOOP_DEVICE = re.compile(r"/dev/loop\d+(p\d+)?")


class Partition(Protocol):
    """One mount, as ``psutil.disk_partitions(all=False)`` gives it: no pseudo and no network filesystem."""

    @property
    def device(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...


class Usage(Protocol):
    """Bytes, as ``psutil.disk_usage`` gives them: ``used`` counts the blocks reserved for root as free, like ``df``."""

    @property
    def total(self) -> int: ...
    @property
    def used(self) -> int: ...


def _is_noise(partition: Partition) -> bool:
    return (
        partition.fstype in _READ_ONLY_IMAGES
        or partition.fstype in _LAYERED
        or _LOOP_DEVICE.fullmatch(partition.device) is not None
    )


def choose_mountpoints(partitions: Iterable[Partition]) -> list[str]:
    """One mountpoint a device, and ``/`` whatever it is; sorted, the first 16.

    A device that is mounted more than once (bind mounts, subvolumes) is reported at the shortest path.
    """
    by_device: dict[str, str] = {}
    for partition in partitions:
        if _is_noise(partition):
            continue
        known = by_device.setdefault(partition.device, partition.mountpoint)
        by_device[partition.device] = min(known, partition.mountpoint, key=lambda path: (len(path), path))
    return sorted({"/", *by_device.values()})[:MAX_ITEMS]


class FilesystemCollector:
    """``filesystems``, sorted by mountpoint. One that cannot be read is left out; if none can, ``NothingReadable``.

    Network filesystems are not reported: they are not this machine's, and a dead server would hang the reading.
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
            raise NothingReadable(f"no filesystem could be read: {', '.join(map(wire_text, readings))}")
        return pb.Heartbeat(filesystems=filesystems)

    def _read(self, mountpoint: str) -> pb.Filesystem | None:
        try:
            usage = self._read_usage(mountpoint)
        except OSError as exc:
            _log.debug("filesystem %s is left out: %s", wire_text(mountpoint), exc)
            return None
        if usage.total <= 0:
            return None  # a pseudo filesystem, which df leaves out too
        return pb.Filesystem(mountpoint=wire_text(mountpoint), used_bytes=max(0, usage.used), size_bytes=usage.total)
