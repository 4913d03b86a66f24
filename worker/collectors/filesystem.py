"""Space on the real filesystems, as ``df`` shows it; in a container on those mounted in the container."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import psutil

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import clean_name, make
from fleetpulse.worker.collectors import MAX_ITEMS, CollectorError

_LOGGER = logging.getLogger(__name__)

_IGNORED_TYPES = frozenset({"squashfs", "erofs", "cramfs", "iso9660", "udf", "overlay", "aufs"})
"""Read-only images, which are always full, and a container's views of a filesystem that is counted already."""

_LOOP_DEVICE = re.compile(r"/dev/loop\d+(p\d+)?")


class NothingReadable(CollectorError):
    """The machine has filesystems, and none of them could be read."""


class Mount(NamedTuple):
    device: str
    mountpoint: str
    fstype: str


class Usage(NamedTuple):
    """Bytes; ``used`` leaves out the blocks reserved for root, like ``df``."""

    used: int
    total: int


def read_mounts() -> list[Mount]:
    """Without pseudo and network filesystems."""
    return [Mount(mount.device, mount.mountpoint, mount.fstype) for mount in psutil.disk_partitions(all=False)]


def read_usage(mountpoint: str) -> Usage:
    """Raises ``OSError``."""
    usage = psutil.disk_usage(mountpoint)
    return Usage(usage.used, usage.total)


def choose_mountpoints(mounts: Iterable[Mount]) -> list[str]:
    """One mountpoint for each device, and ``/`` in any case; sorted, the first 16.

    A device that is mounted more than once (bind mounts, subvolumes) counts at the shortest path.
    """
    by_device: dict[str, str] = {}
    for mount in mounts:
        if mount.fstype in _IGNORED_TYPES or _LOOP_DEVICE.fullmatch(mount.device):
            continue
        known = by_device.setdefault(mount.device, mount.mountpoint)
        by_device[mount.device] = min(known, mount.mountpoint, key=lambda path: (len(path), path))
    return sorted({"/", *by_device.values()})[:MAX_ITEMS]


class FilesystemCollector:
    """``filesystems``, sorted by mountpoint, without those that cannot be read; ``NothingReadable`` if none can.

    Network filesystems are not reported: they belong to another machine, and a dead server would hang the reading.
    """

    name = "filesystem"

    def __init__(
        self,
        read_mounts: Callable[[], Sequence[Mount]] = read_mounts,
        read_usage: Callable[[str], Usage] = read_usage,
        is_directory: Callable[[str], bool] = os.path.isdir,
    ) -> None:
        self._read_mounts, self._read_usage, self._is_directory = read_mounts, read_usage, is_directory

    def collect(self) -> pb.Heartbeat:
        # Container tools mount single files, /etc/hosts for one, out of a filesystem of the host.
        mounts = [mount for mount in self._read_mounts() if self._is_directory(mount.mountpoint)]
        readings = {mountpoint: self._read(mountpoint) for mountpoint in choose_mountpoints(mounts)}
        filesystems = [reading for reading in readings.values() if reading is not None]
        if not filesystems:
            raise NothingReadable(f"no filesystem could be read: {', '.join(map(clean_name, readings))}")
        return pb.Heartbeat(filesystems=filesystems)

    def _read(self, mountpoint: str) -> pb.Filesystem | None:
        try:
            usage = self._read_usage(mountpoint)
        except OSError as exc:
            _LOGGER.debug("filesystem %s is left out: %s", clean_name(mountpoint), exc)
            return None
        if usage.total <= 0:
            return None  # a pseudo filesystem, which df leaves out too
        return make(pb.Filesystem, mountpoint=mountpoint, used_bytes=max(0, usage.used), size_bytes=usage.total)
