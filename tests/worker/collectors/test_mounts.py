"""worker.collectors.mounts"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fleetpulse.worker.collectors import COLLECTOR_DECIDES, NamePatterns
from fleetpulse.worker.collectors.mounts import (
    MountedFilesystem,
    choose_filesystems,
    parse_mountinfo,
    read_disk_types,
    read_fstab,
)

DISK_TYPES = frozenset({"ext4", "vfat", "zfs", "btrfs", "xfs"})
ROOT = "1 0 8:1 / / rw - ext4 /dev/sda1 rw"


def chosen(*lines: str, patterns: NamePatterns = COLLECTOR_DECIDES) -> list[MountedFilesystem]:
    return choose_filesystems(parse_mountinfo("\n".join(lines)), DISK_TYPES, patterns)


def places(*lines: str, patterns: NamePatterns = COLLECTOR_DECIDES) -> list[list[str]]:
    """The places of each filesystem."""
    return [[mount.mountpoint for mount in each.mounts] for each in chosen(*lines, patterns=patterns)]


def test_line_of_mountinfo() -> None:
    line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue"
    (mount,) = parse_mountinfo(line + "\nno mount\n")
    assert (mount.mount_id, mount.parent_id, mount.device_number) == (36, 35, "98:0")
    assert (mount.mountpoint, mount.fstype, mount.source) == ("/mnt 2", "ext3", "/dev/root")
    assert mount.super_options == {"rw", "errors=continue"}


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u2028b", "a\x0bb", "a\x1cb", "a\x85b", "cass\udce9"])
def test_mountpoint_may_have_what_unicode_calls_a_space(name: str) -> None:
    assert places(ROOT, f"2 1 8:2 / /mnt/{name} rw - ext4 /dev/sda2 rw") == [["/"], [f"/mnt/{name}"]]


def test_newline_in_a_mountpoint_is_decoded() -> None:
    assert places(ROOT, r"2 1 8:2 / /mnt/a\012b\134c rw - ext4 /dev/sda2 rw") == [["/"], ["/mnt/a\nb\\c"]]


def test_filesystem_with_several_mounts_is_one_with_the_shortest_path_first() -> None:
    bind = "3 1 8:1 /var/www /srv/www rw - ext4 /dev/sda1 rw"
    hosts = "4 1 8:1 /x/hosts /etc/hosts rw - ext4 /dev/sda1 rw"
    assert places(ROOT, hosts, bind) == [["/", "/srv/www", "/etc/hosts"]]


def test_subvolumes_are_one_filesystem() -> None:
    root = "1 0 0:30 /@ / rw - btrfs /dev/sda2 rw,subvolid=256"
    home = "2 1 0:30 /@home /home rw - btrfs /dev/sda2 rw,subvolid=257"
    (filesystem,) = chosen(root, home)
    assert [mount.mountpoint for mount in filesystem.mounts] == ["/", "/home"]
    assert filesystem.mounts[0].stat_device_number is None


def test_zfs_pool_is_one_filesystem_without_the_layers_of_containers() -> None:
    root = "1 0 0:30 / / rw - zfs rpool/ROOT/debian rw,xattr"
    home = "2 1 0:31 / /home rw - zfs rpool/home rw,xattr"
    layers = [f"{i} 1 0:{i} / /var/lib/docker/zfs/graph/{i:064} rw - zfs rpool/docker/{i} rw" for i in range(40, 80)]
    boot = "3 1 0:33 / /boot rw - zfs bpool/BOOT rw"
    assert places(root, home, *layers, boot) == [["/", "/home"], ["/boot"]]


@pytest.mark.parametrize(
    "line",
    [
        "2 1 7:3 / /snap/core/1 ro - squashfs /dev/loop3 ro",
        "2 1 7:3 / /mnt/image rw - ext4 /dev/loop3 rw",
        "2 1 7:3 / /mnt/image rw - ext4 /dev/loop3p1 rw",
        "2 1 11:0 / /media/cdrom ro - iso9660 /dev/sr0 ro",
        "2 1 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw",
        "2 1 0:50 / /run rw - tmpfs tmpfs rw,size=1k",
        "2 1 0:50 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw,user_id=0,group_id=0,allow_other",
        "2 1 0:50 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse gvfsd-fuse rw,user_id=1000,group_id=1000",
        "2 1 0:50 / /sys/fs/fuse/connections rw - fusectl fusectl rw",
    ],
)
def test_images_views_and_pseudo_filesystems_are_not_chosen(line: str) -> None:
    assert places(ROOT, line) == [["/"]]


def test_root_is_chosen_whatever_it_is() -> None:
    assert places("1 0 0:50 / / rw - overlay overlay rw") == [["/"]]


def test_network_filesystems_are_chosen_and_known_as_such() -> None:
    nfs = "2 1 0:50 / /home rw - nfs4 server:/home rw"
    sshfs = "3 1 0:51 / /mnt/s rw - fuse.sshfs me@host:/ rw,user_id=0,group_id=0,allow_other"
    assert [(each.mounts[0].mountpoint, each.is_network) for each in chosen(ROOT, nfs, sshfs)] == [
        ("/", False), ("/home", True), ("/mnt/s", True),
    ]  # fmt: skip


def test_mount_that_another_one_covers_is_not_chosen() -> None:
    home = "2 1 8:2 / /home rw - ext4 /dev/sda2 rw"
    below = "3 2 8:3 / /home/data rw - ext4 /dev/sda3 rw"
    protect_home = "4 2 0:60 / /home ro - tmpfs tmpfs ro"
    over = "5 1 8:4 / /srv rw - ext4 /dev/sda4 rw"
    again = "6 5 8:5 / /srv rw - ext4 /dev/sda5 rw"
    assert places(ROOT, home, below) == [["/"], ["/home"], ["/home/data"]]
    assert places(ROOT, home, below, protect_home) == [["/"]]
    assert places(ROOT, over, again) == [["/"], ["/srv"]]
    assert [each.mounts[0].source for each in chosen(ROOT, over, again)] == ["/dev/sda1", "/dev/sda5"]


def test_root_over_the_first_root_is_the_one_that_is_seen() -> None:
    first = "1 0 0:2 / / rw - rootfs rootfs rw"
    second = "2 1 8:1 / / rw - ext4 /dev/sda1 rw"
    (root,) = chosen(first, second)
    assert root.mounts[0].source == "/dev/sda1"


def test_root_comes_first_then_disks_then_network_then_volumes_of_containers() -> None:
    volume = "2 1 8:2 / /var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/pvc-1/mount rw - ext4 /dev/sdb rw"
    nfs = "3 1 0:50 / /home rw - nfs4 server:/home rw"
    data = "4 1 8:3 / /zdata rw - xfs /dev/sdc rw"
    docker = "5 1 8:4 / /var/lib/docker rw - xfs /dev/sdd rw"
    assert [each[0] for each in places(volume, nfs, data, docker, ROOT)] == [
        "/", "/var/lib/docker", "/zdata", "/home", "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/pvc-1/mount",
    ]  # fmt: skip


def test_volume_of_a_pod_has_the_name_that_outlives_the_pod() -> None:
    stable = "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/" + 64 * "a" + "/globalmount"
    lines = [f"3 1 8:2 / {stable} rw - ext4 /dev/sdb rw", "2 1 8:2 / /var/lib/kubelet/pods/1/v rw - ext4 /dev/sdb rw"]
    assert places(ROOT, *lines)[1][0] == stable


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], ["/data*"], ["/"]),
        (["/data", "/tmp"], [], ["/data", "/tmp"]),
        (["/*"], ["/tmp", "/image"], ["/", "/data"]),
        (["/image"], [], ["/image"]),
    ],
)
def test_patterns_decide_before_everything_else(
    include: Sequence[str], exclude: Sequence[str], expected: list[str]
) -> None:
    data = "2 1 8:2 / /data rw - ext4 /dev/sda2 rw"
    tmp = "3 1 0:50 / /tmp rw - tmpfs tmpfs rw"
    image = "4 1 7:0 / /image rw - ext4 /dev/loop0 rw"
    found = places(ROOT, data, tmp, image, patterns=NamePatterns(include, exclude))
    assert sorted(each[0] for each in found) == expected


def test_pattern_names_one_of_several_mounts() -> None:
    bind = "3 1 8:1 /www /srv/www rw - ext4 /dev/sda1 rw"
    assert places(ROOT, bind, patterns=NamePatterns(["/srv/*"])) == [["/srv/www"]]


def test_read_only_is_said_of_the_filesystem_and_not_of_one_mount() -> None:
    lines = [
        "1 0 8:1 / / ro - ext4 /dev/sda1 rw",
        "2 1 8:2 / /a ro - ext4 /dev/sda2 ro",
        "3 1 8:3 / /b rw - ext4 /dev/sda3 rw,emergency_ro",
    ]
    assert [each.mounts[0].is_read_only for each in chosen(*lines)] == [False, True, True]
    assert [each.mounts[0].is_broken for each in chosen(*lines)] == [False, False, True]


def test_types_on_block_devices(tmp_path: Path) -> None:
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tfuseblk\nnodev\tfuse\n")
    types = read_disk_types(tmp_path)
    assert {"ext4", "fuseblk", "zfs", "btrfs"} <= types
    assert types.isdisjoint({"sysfs", "tmpfs", "fuse"})


def test_common_types_where_the_kernel_does_not_say(tmp_path: Path) -> None:
    assert {"ext4", "xfs", "zfs"} <= read_disk_types(tmp_path)


def test_fstab(tmp_path: Path) -> None:
    path = tmp_path / "fstab"
    path.write_text("# a comment\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/sdb1\t/my\\040data  xfs ro,noatime\nbad\n")
    assert read_fstab(path) == {"/": {"errors=remount-ro"}, "/my data": {"ro", "noatime"}}
    assert read_fstab(tmp_path / "none") == {}
