"""worker.collectors.disk"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import COLLECTOR_DECIDES, NamePatterns
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
DISK = {"device/": "", "size": "2048"}


class Machine:
    """``/sys/block`` and ``/proc/diskstats``: each device with its files; a name with ``/`` at the end is a folder."""

    def __init__(self, folder: Path, diskstats: str, devices: Mapping[str, Mapping[str, str]]) -> None:
        self.proc, self.sys, self.now = folder / "proc", folder / "sys", 1000.0
        self.proc.mkdir()
        self.write(diskstats)
        for device, files in devices.items():
            (self.sys / "block" / device).mkdir(parents=True)
            for name, content in files.items():
                path = self.sys / "block" / device / name
                path.parent.mkdir(exist_ok=True)
                if name.endswith("/"):
                    path.mkdir(exist_ok=True)
                else:
                    path.write_text(content + "\n")

    def write(self, diskstats: str) -> None:
        (self.proc / "diskstats").write_text(diskstats)

    def collector(self, patterns: NamePatterns = COLLECTOR_DECIDES) -> DiskCollector:
        return DiskCollector(self.proc, self.sys, patterns, clock=lambda: self.now)


def line(device: str) -> str:
    return f"8 0 {device} 1 0 8 1 2 0 16 1 0 1 2\n"


def names(collector: DiskCollector) -> list[str]:
    return [disk.device for disk in collector.collect().disk_devices]


def test_sectors_are_512_bytes() -> None:
    counters = {disk.device: disk for disk in parse_diskstats(DISKSTATS)}
    assert counters["nvme0n1"] == DiskCounters("nvme0n1", read_bytes=400000 * 512, written_bytes=200000 * 512)


def test_short_line_of_old_kernels_is_skipped() -> None:
    assert "sda1" not in {disk.device for disk in parse_diskstats(DISKSTATS)}


def test_bad_number_costs_only_itself(tmp_path: Path) -> None:
    diskstats = "8 0 sda 1 0 many 1 2 0 16 1 0 1 2\n" + line("sdb")
    sda, sdb = Machine(tmp_path, diskstats, {"sda": DISK, "sdb": DISK}).collector().collect().disk_devices
    assert (sda.device, sda.HasField("read_bytes"), sda.written_bytes) == ("sda", False, 16 * 512)
    assert sdb.read_bytes == 8 * 512


def test_counter_beyond_the_numbers_of_the_contract_is_absent(tmp_path: Path) -> None:
    diskstats = f"8 0 sda 1 0 {2**64} 1 2 0 16 1 0 1 2\n"
    (sda,) = Machine(tmp_path, diskstats, {"sda": DISK}).collector().collect().disk_devices
    assert (sda.HasField("read_bytes"), sda.written_bytes) == (False, 16 * 512)


def test_only_disks_are_reported_sorted_by_name(tmp_path: Path) -> None:
    sizes = {"nvme0n1": DISK, "sda": DISK, "cciss!c0d0": DISK, "loop0": {"size": "8"}, "dm-0": {"size": "8"}}
    devices = Machine(tmp_path, DISKSTATS, sizes).collector().collect().disk_devices
    assert [disk.device for disk in devices] == ["cciss/c0d0", "nvme0n1", "sda"]
    assert devices[0] == pb.DiskDevice(
        device="cciss/c0d0", read_bytes=8 * 512, written_bytes=16 * 512, size_bytes=2048 * 512
    )


@pytest.mark.parametrize(
    ("device", "files"),
    [
        ("nvme0c0n1", {**DISK, "hidden": "1"}),
        ("sr0", {**DISK, "device/type": "5"}),
        ("sdb", {**DISK, "size": "0"}),
        ("nbd0", {"size": "2048"}),
        ("md0", {"size": "2048"}),
        ("zram0", {"size": "2048"}),
        ("ram0", {"size": "2048"}),
        ("zd0", {"size": "2048"}),
        ("bcache0", {"size": "2048"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_disk_or_counted_elsewhere_is_left_out(
    tmp_path: Path, device: str, files: Mapping[str, str]
) -> None:
    assert names(Machine(tmp_path, line(device) + line("sda"), {device: files, "sda": DISK}).collector()) == ["sda"]


@pytest.mark.parametrize(
    ("device", "files"),
    [
        ("nvme0n1", {**DISK, "hidden": "0"}),
        ("sdc", {**DISK, "device/type": "0"}),
        ("nbd0", {"size": "2048", "pid": "17"}),
        ("mmcblk0", DISK),
        ("vda", DISK),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_disks(tmp_path: Path, device: str, files: Mapping[str, str]) -> None:
    assert names(Machine(tmp_path, line(device), {device: files}).collector()) == [device]


@pytest.mark.parametrize(
    ("files", "state", "reason"),
    [
        ({"device/state": "running"}, "ok", ""),
        ({"device/state": "live"}, "ok", ""),
        ({"device/state": "offline"}, "error", "the kernel has given it up: offline"),
        ({"device/state": "dead"}, "error", "the kernel has given it up: dead"),
        ({"device/pre_eol_info": "0x01"}, "ok", ""),
        ({"device/pre_eol_info": "0x03"}, "error", "its flash is worn out: little of the reserve is left"),
        ({}, "", ""),
    ],
)
def test_state_of_a_disk(tmp_path: Path, files: Mapping[str, str], state: str, reason: str) -> None:
    (disk,) = Machine(tmp_path, line("sda"), {"sda": {**DISK, **files}}).collector().collect().disk_devices
    assert (disk.state, disk.state_reason) == (state, reason)


def test_disk_that_fails_is_noticed_within_a_minute(tmp_path: Path) -> None:
    machine = Machine(tmp_path, line("sda"), {"sda": {**DISK, "device/state": "running"}})
    collector = machine.collector()
    assert collector.collect().disk_devices[0].state == "ok"
    (machine.sys / "block" / "sda" / "device" / "state").write_text("offline\n")
    machine.now += 60.0
    assert collector.collect().disk_devices[0].state == "error"


def test_unused_disk_has_zero_bytes(tmp_path: Path) -> None:
    (disk,) = Machine(tmp_path, DISKSTATS, {"sda": DISK}).collector().collect().disk_devices
    assert disk.HasField("read_bytes")
    assert disk.read_bytes == 0


def test_largest_disks_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    devices = {f"sd{first}{second}": DISK for first in "abc" for second in "abcdefghijklmnopqrstuvwxyz"}
    devices["zz"] = {**DISK, "size": "4096"}
    heartbeat = Machine(tmp_path, "".join(map(line, reversed(devices))), devices).collector().collect()
    assert [disk.device for disk in heartbeat.disk_devices] == [*sorted(devices)[:63], "zz"]
    assert list(heartbeat.left_out) == [pb.LeftOut(collector="disk", count=15)]


def test_patterns_decide_before_the_collector(tmp_path: Path) -> None:
    devices = {"sda": DISK, "sdb": DISK, "dm-0": {"size": "8"}}
    machine = Machine(tmp_path, "".join(map(line, devices)), devices)
    assert names(machine.collector(NamePatterns(exclude=["sdb"]))) == ["sda"]
    assert names(machine.collector(NamePatterns(["dm-*"]))) == ["dm-0"]


def test_new_disk_is_found(tmp_path: Path) -> None:
    machine = Machine(tmp_path, line("sda"), {"sda": DISK, "sdb": DISK})
    collector = machine.collector()
    assert names(collector) == ["sda"]
    machine.write(line("sda") + line("sdb"))
    assert names(collector) == ["sda", "sdb"]


def test_medium_that_is_put_in_is_found_within_a_minute(tmp_path: Path) -> None:
    machine = Machine(tmp_path, line("sda"), {"sda": {**DISK, "size": "0"}})
    collector = machine.collector()
    assert names(collector) == []
    (machine.sys / "block" / "sda" / "size").write_text("8\n")
    machine.now += 60.0
    assert names(collector) == ["sda"]


def test_machine_without_disks_gives_an_empty_report(tmp_path: Path) -> None:
    assert not Machine(tmp_path, "", {}).collector().collect().disk_devices


def test_machine_without_diskstats_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskCollector(proc=tmp_path, sys=tmp_path).collect()


@pytest.mark.skipif(not Path("/proc/diskstats").exists(), reason="needs /proc/diskstats")
def test_disks_of_this_machine() -> None:
    physical = {path.parent.name.replace("!", "/") for path in Path("/sys/block").glob("*/device")}
    assert {disk.device for disk in DiskCollector().collect().disk_devices} <= physical
