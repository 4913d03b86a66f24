"""worker.collectors.filesystem"""

import os
from collections.abc import Mapping

import pytest

from fleetpulse.worker.collectors.filesystem import (
    FilesystemCollector,
    Mount,
    NothingReadable,
    Usage,
    choose_mountpoints,
)


def mount(device: str, mountpoint: str, fstype: str = "ext4") -> Mount:
    return Mount(device, mountpoint, fstype)


ROOT = mount("/dev/sda1", "/")


def machine(*mounts: Mount, usages: Mapping[str, Usage], files: tuple[str, ...] = ()) -> FilesystemCollector:
    """``usages`` by mountpoint; a mountpoint that is missing there cannot be read."""

    def read_usage(mountpoint: str) -> Usage:
        if mountpoint not in usages:
            raise PermissionError(13, "Permission denied", mountpoint)
        return usages[mountpoint]

    return FilesystemCollector(lambda: mounts, read_usage, is_directory=lambda path: path not in files)


def test_shortest_mountpoint_of_each_device_is_chosen() -> None:
    mounts = [mount("/dev/sda1", "/mnt"), ROOT, mount("/dev/sdb1", "/bind/mount"), mount("/dev/sdb1", "/data")]
    assert choose_mountpoints(mounts) == ["/", "/data"]
    assert choose_mountpoints(reversed(mounts)) == ["/", "/data"]


def test_root_is_chosen_even_as_an_overlay() -> None:
    mounts = [mount("overlay", "/", "overlay"), mount("/dev/sdb1", "/data")]
    assert choose_mountpoints(mounts) == ["/", "/data"]
    assert choose_mountpoints([]) == ["/"]


@pytest.mark.parametrize(
    "noise",
    [
        mount("/dev/loop3", "/snap/core/1", "squashfs"),
        mount("/dev/loop3", "/mnt/image", "ext4"),
        mount("/dev/loop3p1", "/mnt/image", "ext4"),
        mount("overlay", "/var/lib/docker/overlay2/x/merged", "overlay"),
        mount("/dev/sr0", "/media/cdrom", "iso9660"),
    ],
    ids=lambda mount: f"{mount.device} {mount.fstype}",
)
def test_images_loop_devices_and_overlays_are_left_out(noise: Mount) -> None:
    assert choose_mountpoints([ROOT, noise]) == ["/"]


def test_two_mounts_at_one_path_count_once() -> None:
    assert choose_mountpoints([ROOT, mount("/dev/sdb1", "/data"), mount("/dev/sdc1", "/data")]) == ["/", "/data"]


def test_at_most_64_mountpoints_are_chosen_sorted() -> None:
    mounts = [mount(f"/dev/sd{i}", f"/data{i:02}") for i in reversed(range(80))]
    assert choose_mountpoints(mounts) == ["/", *(f"/data{i:02}" for i in range(63))]


def test_used_and_size_are_reported() -> None:
    collector = machine(ROOT, mount("/dev/sdb1", "/data"), usages={"/": Usage(40, 100), "/data": Usage(0, 900)})
    root, data = collector.collect().filesystems
    assert (root.mountpoint, root.used_bytes, root.size_bytes) == ("/", 40, 100)
    assert (data.mountpoint, data.used_bytes, data.size_bytes) == ("/data", 0, 900)
    assert data.HasField("used_bytes")


def test_unreadable_filesystem_is_left_out() -> None:
    collector = machine(ROOT, mount("/dev/sdb1", "/data"), usages={"/data": Usage(1, 2)})
    assert [filesystem.mountpoint for filesystem in collector.collect().filesystems] == ["/data"]


def test_collect_raises_when_no_filesystem_can_be_read() -> None:
    with pytest.raises(NothingReadable, match=r"/, /data$"):
        machine(ROOT, mount("/dev/sdb1", "/data"), usages={}).collect()


def test_filesystem_without_blocks_is_left_out() -> None:
    collector = machine(ROOT, mount("none", "/pseudo"), usages={"/": Usage(1, 2), "/pseudo": Usage(0, 0)})
    assert [filesystem.mountpoint for filesystem in collector.collect().filesystems] == ["/"]


def test_bind_mounted_file_is_left_out() -> None:
    collector = machine(
        mount("/dev/sda1", "/etc/hosts"),
        mount("/dev/sdb1", "/volumes/data"),
        mount("/dev/sdb1", "/etc/conf"),
        usages={"/": Usage(1, 2), "/volumes/data": Usage(3, 4), "/etc/hosts": Usage(5, 6), "/etc/conf": Usage(5, 6)},
        files=("/etc/hosts", "/etc/conf"),
    )
    assert [filesystem.mountpoint for filesystem in collector.collect().filesystems] == ["/", "/volumes/data"]


def test_mountpoint_that_is_not_utf8_is_read_by_its_bytes() -> None:
    collector = machine(mount("/dev/sdb1", "/d\udcff"), usages={"/d\udcff": Usage(1, 2)})
    assert [filesystem.mountpoint for filesystem in collector.collect().filesystems] == ["/d\\xff"]


def test_filesystems_of_this_machine() -> None:
    root = FilesystemCollector().collect().filesystems[0]
    now = os.statvfs("/")
    assert root.mountpoint == "/"
    assert root.size_bytes == now.f_blocks * now.f_frsize
    used = (now.f_blocks - now.f_bfree) * now.f_frsize
    assert root.used_bytes == pytest.approx(used, abs=0.05 * root.size_bytes)
