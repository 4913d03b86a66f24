"""The mount table, and which filesystems of it are worth a reading. Pure, but for three functions that read files.

A filesystem is reported once, wherever it is mounted: the kernel gives each one a number, which bind mounts,
subvolumes and the files that container tools mount have in common. ZFS gives one to each dataset, so a pool counts as
one filesystem. What is mounted under another mount cannot be seen, and is not reported.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fleetpulse.worker.collectors import NamePatterns, read_text

MAX_FILESYSTEMS = 512
"""Read in one round; more are counted as left out unread."""

_IMAGES = frozenset({"squashfs", "erofs", "cramfs", "romfs", "iso9660", "udf", "fuse.snapfuse", "fuse.squashfuse"})
"""Read-only images, which are always full."""

_VIEWS = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs", "fuse.lxcfs"})
"""A container's views of a filesystem that is counted already."""

_LOOP_DEVICE = re.compile(r"/dev/loop\d+(p\d+)?")

_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "afs", "9p", "virtiofs"}
    | {"orangefs", "pvfs2", "wekafs", "panfs", "ncpfs", "coda", "davfs"}
)

_DISK_TYPES = frozenset({"zfs", "btrfs", "bcachefs", "ubifs", "jffs2"})
"""On disks or flash, although ``/proc/filesystems`` may not say so."""

_COMMON_DISK_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "vfat", "exfat", "ntfs3", "fuseblk", "f2fs", "jfs"})
"""For where ``/proc/filesystems`` is hidden."""

_MANY_DEVICE_NUMBERS = frozenset({"btrfs", "bcachefs", "overlay", "aufs"})
"""``stat`` gives another number for their folders than the mount table has for the filesystem."""

_CONTAINERS = re.compile(
    r"/var/lib/(docker|containers|containerd|kubelet|rancher|k0s|lxd|lxc|incus|machines)/|/run/(containerd|k3s|docker)/"
    r"|/var/snap/(docker|lxd|microk8s)/"
)
_STABLE_VOLUME = re.compile(r"/var/lib/kubelet/plugins/")
"""Where a volume has one name for its whole life; below ``pods`` it has one for each pod."""

_HIDDEN_PLACES = ("/proc/", "/sys/", "/dev/")
_BROKEN_OPTIONS = frozenset({"emergency_ro", "shutdown"})
"""Of ext4, since Linux 6.16: it found an error and takes no more writes."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A line of ``/proc/self/mountinfo`` (proc(5)). Bytes that are not UTF-8 are surrogates."""

    mount_id: int
    parent_id: int
    device_number: str
    """Of the filesystem, as ``major:minor``."""

    mountpoint: str
    fstype: str
    source: str
    super_options: frozenset[str] = frozenset({"rw"})
    """Of the filesystem. A read-only bind mount of a writable one has ``ro`` only in its own options."""

    @property
    def stat_device_number(self) -> str | None:
        """What ``stat`` gives for the mount point if this is what is seen there; ``None`` if that cannot be said."""
        return None if self.fstype in _MANY_DEVICE_NUMBERS else self.device_number

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written through any of its mounts."""
        return "ro" in self.super_options or self.is_broken

    @property
    def is_broken(self) -> bool:
        """Whether the kernel itself says that it stopped writing because of an error."""
        return not _BROKEN_OPTIONS.isdisjoint(self.super_options)

    @property
    def is_of_containers(self) -> bool:
        """Whether a container tool mounted it, for a container."""
        return _CONTAINERS.match(self.mountpoint) is not None


class MountedFilesystem(NamedTuple):
    """One filesystem, or one ZFS pool, with the places where it can be seen."""

    mounts: tuple[Mount, ...]
    """The best place to read and to name it first. Of a ZFS pool its datasets."""

    is_network: bool
    """Its space is another machine's."""

    is_asked_for: bool = False
    """An operator's pattern names it."""

    @property
    def key(self) -> tuple[str, str]:
        """Identifies it from one reading of the mount table to the next."""
        first = self.mounts[0]
        return (first.fstype, _pool(first)) if first.fstype == "zfs" else (first.fstype, first.device_number)

    @property
    def importance(self) -> tuple[bool, bool, bool]:
        """Sorts the most important first: the root, then disks before network and before volumes of containers."""
        first = self.mounts[0]
        return first.mountpoint != "/", first.is_of_containers, self.is_network


def read_mounts(proc: Path) -> str:
    """The mount table. Raises ``OSError``."""
    return read_text(proc / "self" / "mountinfo")


def read_disk_types(proc: Path) -> frozenset[str]:
    """The types of filesystems that are on block devices."""
    try:
        lines = read_text(proc / "filesystems").splitlines()
    except OSError:
        return _COMMON_DISK_TYPES | _DISK_TYPES
    return frozenset(line.strip() for line in lines if not line.startswith("nodev")) - {"fuse"} | _DISK_TYPES


def read_fstab(path: Path) -> dict[str, frozenset[str]]:
    """The options of each mount point that is to be mounted at boot; empty when there is no such file."""
    try:
        text = read_text(path)
    except OSError:
        return {}
    rows = [line.split() for line in text.split("\n") if not line.lstrip().startswith("#")]
    return {_unescaped(row[1]): frozenset(row[3].split(",")) for row in rows if len(row) > 3}


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts in the order of mounting. Lines that are none are skipped."""
    # Not splitlines(): a name may contain what Unicode calls the end of a line.
    return [mount for line in text.split("\n") if (mount := _mount(line)) is not None]


def _mount(line: str) -> Mount | None:
    place, separator, filesystem = line.partition(" - ")
    words, kinds = place.split(" "), filesystem.split(" ")
    if not separator or len(words) < 6 or len(kinds) < 3 or not (words[0].isdecimal() and words[1].isdecimal()):
        return None
    return Mount(
        mount_id=int(words[0]),
        parent_id=int(words[1]),
        device_number=words[2],
        mountpoint=_unescaped(words[4]),
        fstype=kinds[0],
        source=_unescaped(kinds[1]),
        super_options=frozenset(kinds[2].split(",")),
    )


def _unescaped(word: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), word)


def visible_mounts(mounts: Sequence[Mount]) -> list[Mount]:
    """Those that a path leads to: none that another mount covers, at the same place or above."""
    known = {mount.mount_id for mount in mounts}
    children = {(mount.parent_id, mount.mountpoint): mount for mount in mounts if mount.parent_id in known}
    root = next((mount for mount in mounts if mount.mountpoint == "/" and mount.parent_id not in known), None)
    if root is None:
        return list(mounts)
    return [mount for mount in mounts if _at(mount.mountpoint, root, children) is mount]


def _at(path: str, root: Mount, children: Mapping[tuple[int, str], Mount]) -> Mount:
    """The mount that the path leads to."""
    steps = [index for index, character in enumerate(path) if character == "/"]
    prefixes = dict.fromkeys(["/", *(path[:index] for index in steps[1:]), path])
    current = root
    for prefix in prefixes:
        while (child := children.get((current.mount_id, prefix))) is not None and child is not current:
            current = child
    return current


def choose_filesystems(
    mounts: Sequence[Mount], disk_types: frozenset[str], patterns: NamePatterns
) -> list[MountedFilesystem]:
    """The filesystems to report, the most important first."""
    groups: dict[tuple[str, str], MountedFilesystem] = {}
    for mount in visible_mounts(mounts):
        found = _candidate(mount, disk_types, patterns.decide(mount.mountpoint))
        if found is not None:
            known = groups.get(found.key)
            groups[found.key] = found if known is None else _together(known, found)
    chosen = [group._replace(mounts=_in_order(group.mounts)) for group in groups.values()]
    return sorted(chosen, key=lambda group: (group.importance, group.mounts[0].mountpoint))


def _candidate(mount: Mount, disk_types: frozenset[str], decision: bool | None) -> MountedFilesystem | None:
    if decision is False:
        return None
    is_network = mount.fstype in _NETWORK_TYPES or (
        # Others may not even look at a user's own: gvfs, the portal of Flatpak.
        mount.fstype.startswith("fuse") and mount.fstype != "fuseblk" and "allow_other" in mount.super_options
    )
    if decision or mount.mountpoint == "/":
        return MountedFilesystem((mount,), is_network, is_asked_for=bool(decision))
    if mount.fstype in _IMAGES or mount.fstype in _VIEWS or _LOOP_DEVICE.fullmatch(mount.source):
        return None
    if mount.mountpoint.startswith(_HIDDEN_PLACES) or not (is_network or mount.fstype in disk_types):
        return None
    return MountedFilesystem((mount,), is_network)


def _together(one: MountedFilesystem, other: MountedFilesystem) -> MountedFilesystem:
    asked_for = [each for each in (one, other) if each.is_asked_for] or [one, other]
    mounts = tuple(mount for each in asked_for for mount in each.mounts)
    return MountedFilesystem(mounts, one.is_network, one.is_asked_for or other.is_asked_for)


def _in_order(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """The shortest path first, of containers last."""
    ordered = sorted(
        mounts,
        key=lambda mount: (
            mount.is_of_containers and not _STABLE_VOLUME.match(mount.mountpoint),
            mount.is_of_containers,
            len(mount.mountpoint),
            mount.mountpoint,
        ),
    )
    if ordered[0].fstype == "zfs" and not ordered[0].is_of_containers:
        # The layers of containers are clones: each has in use what its parent has.
        ordered = [mount for mount in ordered if not mount.is_of_containers]
    return tuple(ordered)


def _pool(mount: Mount) -> str:
    return mount.source.partition("/")[0]
