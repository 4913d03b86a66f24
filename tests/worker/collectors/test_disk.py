"""worker.collectors.disk"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.disk import DiskCollector, DiskCounters, parse_diskstats

DISKSTATS = """\
   7       0 loop0 10 0 80 1 0 0 0 0 0 1 1
 259       0 nvme0n1 5000 12 400000 900 3000 40 200000 700 0 800 1600 0 0 0 0 10 5
 259       1 nvme0n1p1 4000 12 300000 900 3000 40 200000 700 0 800 1600 0 0 0 0
 104       0 cciss/c0d0 1 0 8 1 2 0 16 1 0 1 2
 253       0 dm-0 4000 0 300000 900 3000 0 200000 700 0 800 1600
   8       1 sda1 35486 38030 38030 38030
   8       0 sda 1 0 0 1 2 0 0 1 0 1 2
"""


def machine(folder: Path, diskstats: str, physical: Sequence[str], virtual: Sequence[str] = ()) -> DiskCollector:
    proc, sys = folder / "proc", folder / "sys"
    proc.mkdir()
    (proc / "diskstats").write_text(diskstats)
    for device in physical:
        (sys / "block" / device / "device").mkdir(parents=True)
    for device in virtual:
        (sys / "block" / device).mkdir(parents=True)
    return DiskCollector(proc=proc, sys=sys)


def test_sectors_are_512_bytes() -> None:
    counters = {disk.device: disk for disk in parse_diskstats(DISKSTATS)}
    assert counters["nvme0n1"] == DiskCounters("nvme0n1", read_bytes=400000 * 512, written_bytes=200000 * 512)


def test_short_line_of_old_kernels_is_skipped() -> None:
    assert "sda1" not in {disk.device for disk in parse_diskstats(DISKSTATS)}


def test_counter_that_is_not_a_number_raises() -> None:
    with pytest.raises(ValueError, match="many"):
        list(parse_diskstats("8 0 sda 1 0 many 1 2 0 0 1 0 1 2"))


def test_only_physical_disks_are_reported_sorted_by_name(tmp_path: Path) -> None:
    collector = machine(tmp_path, DISKSTATS, ["nvme0n1", "sda", "cciss!c0d0"], ["loop0", "dm-0"])
    devices = collector.collect().disk_devices
    assert [disk.device for disk in devices] == ["cciss/c0d0", "nvme0n1", "sda"]
    assert (devices[0].read_bytes, devices[0].written_bytes) == (8 * 512, 16 * 512)


def test_unused_disk_has_zero_bytes(tmp_path: Path) -> None:
    (disk,) = machine(tmp_path, DISKSTATS, ["sda"]).collect().disk_devices
    assert disk.HasField("read_bytes")
    assert disk.read_bytes == 0


def test_disks_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    names = [f"sd{first}{second}" for first in "abc" for second in "abcdefghijklmnopqrstuvwxyz"]
    diskstats = "".join(f"8 {16 * i} {name} 1 0 8 1 2 0 16 1 0 1 2\n" for i, name in enumerate(reversed(names)))
    heartbeat = machine(tmp_path, diskstats, names).collect()
    assert [disk.device for disk in heartbeat.disk_devices] == names[:64]
    assert list(heartbeat.left_out) == [pb.LeftOut(collector="disk", count=14)]


def test_machine_without_disks_gives_an_empty_report(tmp_path: Path) -> None:
    assert not machine(tmp_path, "", []).collect().disk_devices


def test_machine_without_diskstats_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskCollector(proc=tmp_path, sys=tmp_path).collect()


@pytest.mark.skipif(not Path("/proc/diskstats").exists(), reason="needs /proc/diskstats")
def test_disks_of_this_machine() -> None:
    physical = {path.parent.name.replace("!", "/") for path in Path("/sys/block").glob("*/device")}
    assert {disk.device for disk in DiskCollector().collect().disk_devices} <= physical
