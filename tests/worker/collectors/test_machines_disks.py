"""The filesystem and the disk collector on recorded machines give what ``df`` and ``lsblk`` show there."""

import re
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.disk import DiskCollector
from fleetpulse.worker.collectors.filesystem import FilesystemCollector, Space
from tests.worker.collectors import recorded_machines

KIB = 1024
VOLUMES = [f"/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/{i:064x}/globalmount" for i in range(14)]

# By machine: the share in use as df rounds it, of the filesystems that count (None: the space is another machine's),
# and the disks of lsblk -d.
EXPECTED: dict[str, tuple[dict[str, int | None], list[str]]] = {
    "proxmox": (
        {"/": 33, "/boot/efi": 1, "/rpool": 1, "/etc/pve": None, "/mnt/pve/backup": None},
        ["nvme0n1", "sda"],
    ),
    "eks": (
        {"/": 43, "/zdata": 77, **dict.fromkeys(VOLUMES, 1)},
        sorted(f"nvme{index}n1" for index in range(16)),
    ),
    "gke": ({"/": 55, "/var": 21, "/usr/share/oem": 1}, ["sda"]),
    "openstack": ({"/": 49, "/boot": 33, "/var/lib/nova": 47}, ["sda", "sdb", "sdc", "sdd", "sde"]),
    "azure": ({"/": 14, "/boot/efi": 6, "/mnt": 1}, ["sda", "sdb"]),
    "zfs": ({"/": 25, "/tank": 61, "/boot": 17}, ["nvme0n1", "sda", "sdb", "sdc", "sdd"]),
    "lxc": ({"/": 41}, []),
    "raspberry": ({"/": 97, "/boot/firmware": 15}, ["mmcblk0"]),
    "gpu8": ({"/": 52, "/scratch": 100, "/home": None, "/lustre": None}, ["nvme0n1", "nvme1n1", "nvme2n1"]),
    "laptop": ({"/": 61, "/boot/efi": 23, "/media/me/USB STICK": 7}, ["nvme0n1", "sda"]),
    "cgroup1": ({"/": 54, "/data": 22}, ["sda", "sdb"]),
    "cgroup2": ({"/": 54}, ["vda"]),
    "daemonset": ({"/": 43, "/host": 43, "/host/data": 52}, ["nvme0n1", "nvme1n1"]),
}


class RecordedSpace:
    """What ``statvfs`` gives, from the machine's ``df`` and ``df -i``. Other paths are files."""

    def __init__(self, df: Path) -> None:
        rows = [line.split() for line in df.read_text(encoding="utf-8").splitlines()[1:]]
        self._spaces = {_unescaped(row[0]): [int(number) for number in row[1:]] for row in rows}

    def __call__(self, mountpoint: str, device_number: str | None) -> Space | None:
        numbers = self._spaces.get(mountpoint)
        if numbers is None:
            return None
        size, used, available, inodes, free = numbers
        return Space(size * KIB, used * KIB, available * KIB, inodes, free)


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def df_percent(filesystem: pb.Filesystem) -> int | None:
    """``Use%`` is rounded up."""
    if not filesystem.HasField("used_bytes"):
        return None
    total = filesystem.used_bytes + filesystem.available_bytes
    return -(-100 * filesystem.used_bytes // total)


def test_every_recorded_machine_has_its_row() -> None:
    assert set(recorded_machines.NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_filesystems_and_disks_of_a_recorded_machine(name: str, tmp_path: Path) -> None:
    machine, (filesystems, disks) = recorded_machines.build(name, tmp_path), EXPECTED[name]
    collector = FilesystemCollector(
        machine.proc, read_space=RecordedSpace(tmp_path / "df"), fstab=tmp_path / "none", patience_seconds=20.0
    )
    heartbeat = collector.collect()
    assert {item.mountpoint: df_percent(item) for item in heartbeat.filesystems} == filesystems
    assert {item.state for item in heartbeat.filesystems} == {"ok"}
    assert not heartbeat.left_out
    heartbeat = DiskCollector(machine.proc, machine.sys).collect()
    assert [item.device for item in heartbeat.disk_devices] == disks
    assert not heartbeat.left_out
