"""worker.collectors.filesystem"""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import COLLECTOR_DECIDES, NamePatterns
from fleetpulse.worker.collectors.filesystem import (
    HUNG,
    HUNG_SECONDS,
    MAX_HUNG,
    FilesystemCollector,
    Space,
    read_space,
)
from tests.e2e.waiting import eventually

GIB = 1024**3
ROOT = "1 0 8:1 / / rw - ext4 /dev/sda1 rw"
DATA = "2 1 8:2 / /data rw - ext4 /dev/sda2 rw"
ROOT_SPACE = Space(100 * GIB, 60 * GIB, 35 * GIB, 1000, 250)
DATA_SPACE = Space(900 * GIB, 1 * GIB, 899 * GIB)
READERS = "filesystem-reader"


class Machine:
    """Mounts with what ``statfs`` gives at each: a space, an error, ``None`` for a file, or no answer at all."""

    def __init__(self, proc: Path, *lines: str, answers: Mapping[str, Space | OSError | None]) -> None:
        self.proc = proc
        self.answers = dict(answers)
        self.now = 1000.0
        self.reads: list[tuple[str, str | None]] = []
        self.silent: dict[str, threading.Event] = {}
        (proc / "self").mkdir()
        self.mount(*lines)

    def mount(self, *lines: str) -> None:
        (self.proc / "self" / "mountinfo").write_text("\n".join(lines) + "\n", errors="surrogateescape")

    def read_space(self, mountpoint: str, device_number: str | None) -> Space | None:
        self.reads.append((mountpoint, device_number))
        if mountpoint in self.silent:
            self.silent[mountpoint].wait()
        answer = self.answers.get(mountpoint)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def hang(self, *mountpoints: str) -> None:
        self.silent |= {mountpoint: threading.Event() for mountpoint in mountpoints}

    def answer(self, *mountpoints: str) -> None:
        for mountpoint in mountpoints or tuple(self.silent):
            self.silent.pop(mountpoint).set()

    def collector(
        self, patterns: NamePatterns = COLLECTOR_DECIDES, fstab: Path = Path("/none"), patience_seconds: float = 20.0
    ) -> FilesystemCollector:
        return FilesystemCollector(
            self.proc, patterns, self.read_space, fstab, lambda: self.now, patience_seconds, round_seconds=60.0
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, ROOT, DATA, answers={"/": ROOT_SPACE, "/data": DATA_SPACE})
    yield machine
    machine.answer()
    eventually(lambda: not readers())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == READERS]


def read(collector: FilesystemCollector) -> dict[str, pb.Filesystem]:
    return {filesystem.mountpoint: filesystem for filesystem in collector.collect().filesystems}


def states(collector: FilesystemCollector) -> dict[str, str]:
    return {name: filesystem.state for name, filesystem in read(collector).items()}


# Readings


def test_space_inodes_and_what_it_is_are_reported(machine: Machine) -> None:
    root, data = machine.collector().collect().filesystems
    assert root == pb.Filesystem(
        mountpoint="/", used_bytes=60 * GIB, size_bytes=100 * GIB, available_bytes=35 * GIB, inodes=1000,
        inodes_free=250, is_read_only=False, device="/dev/sda1", fstype="ext4", state="ok",
    )  # fmt: skip
    assert not data.HasField("inodes")
    assert data.HasField("is_read_only")


def test_space_of_a_zfs_pool_counts_once(machine: Machine) -> None:
    machine.mount("1 0 0:30 / / rw - zfs rpool/ROOT rw", "2 1 0:31 / /data rw - zfs rpool/data rw")
    machine.answers = {"/": Space(102 * GIB, 2 * GIB, 100 * GIB), "/data": Space(600 * GIB, 500 * GIB, 100 * GIB)}
    (pool,) = machine.collector().collect().filesystems
    assert pool.mountpoint == "/"
    assert (pool.used_bytes, pool.available_bytes, pool.size_bytes) == (502 * GIB, 100 * GIB, 602 * GIB)


def test_bind_mounted_file_is_passed_over(machine: Machine) -> None:
    machine.mount(ROOT, "3 1 8:2 /hosts /etc/hosts rw - ext4 /dev/sda2 rw", "4 1 8:2 /v /volumes/data rw - ext4 x rw")
    machine.answers |= {"/etc/hosts": None, "/volumes/data": DATA_SPACE}
    assert list(read(machine.collector())) == ["/", "/volumes/data"]


def test_filesystem_without_blocks_is_left_out(machine: Machine) -> None:
    machine.answers["/data"] = Space(0, 0, 0)
    assert list(read(machine.collector())) == ["/"]


def test_machine_on_a_ramdisk_reports_nothing_and_does_not_fail(machine: Machine) -> None:
    machine.mount("1 0 0:2 / / rw - rootfs rootfs rw")
    machine.answers = {"/": Space(0, 0, 0)}
    assert machine.collector().collect() == pb.Heartbeat()


def test_root_is_read_where_the_mount_table_is_hidden(tmp_path: Path) -> None:
    collector = FilesystemCollector(tmp_path, read_space=lambda path, number: ROOT_SPACE)
    assert list(read(collector)) == ["/"]


def test_filesystem_larger_than_the_numbers_of_the_contract_loses_only_its_size(machine: Machine) -> None:
    machine.answers["/data"] = Space(2**70, 5, 2**70)
    filesystems = read(machine.collector())
    assert filesystems["/"].HasField("size_bytes")
    assert not filesystems["/data"].HasField("size_bytes")
    assert filesystems["/data"].used_bytes == 5


def test_space_of_a_network_filesystem_is_reported_only_if_asked_for(machine: Machine) -> None:
    machine.mount(ROOT, "2 1 0:50 / /data rw - nfs4 server:/data rw")
    silent = read(machine.collector())["/data"]
    assert (silent.state, silent.fstype, silent.HasField("size_bytes")) == ("ok", "nfs4", False)
    assert read(machine.collector(NamePatterns(["/data"])))["/data"].size_bytes == 900 * GIB


def test_new_mount_is_found(machine: Machine) -> None:
    collector = machine.collector()
    machine.mount(ROOT)
    assert list(read(collector)) == ["/"]
    machine.mount(ROOT, DATA)
    assert list(read(collector)) == ["/", "/data"]


def test_path_is_read_with_the_number_of_its_filesystem(machine: Machine) -> None:
    machine.mount("1 0 0:30 / / rw - btrfs /dev/sda1 rw", DATA)
    machine.collector().collect()
    assert machine.reads == [("/", None), ("/data", "8:2")]


# Errors


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_filesystem_that_cannot_be_read_is_reported_with_its_error(machine: Machine, code: int) -> None:
    machine.answers["/data"] = OSError(code, os.strerror(code), "/data")
    broken = read(machine.collector())["/data"]
    assert (broken.state, broken.device) == ("error", "/dev/sda2")
    assert broken.state_reason == f"{os.strerror(code)} ({errno.errorcode[code]})"
    assert not broken.HasField("used_bytes")
    assert not broken.HasField("is_read_only")


def test_filesystem_that_can_be_read_at_another_place_is_not_in_error(machine: Machine) -> None:
    machine.mount(ROOT, DATA, "3 1 8:2 / /srv/www rw - ext4 /dev/sda2 rw")
    machine.answers |= {"/data": PermissionError(errno.EACCES, "Permission denied"), "/srv/www": DATA_SPACE}
    assert states(machine.collector()) == {"/": "ok", "/srv/www": "ok"}


# Filesystems that do not answer


def test_filesystem_that_hangs_is_alone_in_error_and_keeps_one_thread(machine: Machine) -> None:
    collector = machine.collector(patience_seconds=0.05)
    eventually(lambda: states(collector) == {"/": "ok", "/data": "ok"})
    machine.hang("/data")
    assert read(collector)["/data"].used_bytes == GIB
    machine.now += HUNG_SECONDS
    for _ in range(20):
        hung = read(collector)
        assert (hung["/"].state, hung["/data"].state, hung["/data"].state_reason) == ("ok", "error", HUNG)
        eventually(lambda: len(readers()) == 1)
    machine.answer("/data")
    eventually(lambda: states(collector) == {"/": "ok", "/data": "ok"})
    eventually(lambda: not readers())


def test_filesystem_that_never_answered_is_in_error_after_a_while(machine: Machine) -> None:
    collector = machine.collector(patience_seconds=0.05)
    machine.hang("/data")
    eventually(lambda: states(collector) == {"/": "ok"})
    machine.now += HUNG_SECONDS
    assert states(collector) == {"/": "ok", "/data": "error"}


def test_root_may_hang_too(machine: Machine) -> None:
    collector = machine.collector(patience_seconds=0.05)
    machine.hang("/")
    eventually(lambda: states(collector) == {"/data": "ok"})
    machine.now += HUNG_SECONDS
    assert states(collector) == {"/": "error", "/data": "ok"}


def test_threads_that_hang_are_bounded_and_disks_are_still_read(machine: Machine) -> None:
    names = [f"/n{index:02}" for index in range(20)]
    machine.mount(ROOT, DATA, *(f"{10 + i} 1 0:{50 + i} / {name} rw - nfs4 s:/ rw" for i, name in enumerate(names)))
    machine.hang(*names)
    collector = machine.collector(patience_seconds=0.05)
    eventually(lambda: bool(collector.collect()) and len(readers()) == MAX_HUNG)
    machine.now += HUNG_SECONDS
    eventually(lambda: states(collector) == {"/": "ok", "/data": "ok", **dict.fromkeys(names, "error")})
    reasons = [read(collector)[name].state_reason for name in names]
    assert reasons.count(HUNG) == MAX_HUNG
    eventually(lambda: len(readers()) == MAX_HUNG)


# More than fit


def test_what_matters_most_is_kept_and_the_rest_is_counted(machine: Machine) -> None:
    volumes = [f"/var/lib/kubelet/pods/{index:02}/volumes/v/mount" for index in range(70)]
    machine.mount(
        *(f"{10 + i} 1 8:{50 + i} / {path} rw - ext4 /dev/sd{i} rw" for i, path in enumerate(volumes)),
        ROOT,
        "5 1 8:2 / /zdata rw - ext4 /dev/sda2 rw",
    )
    machine.answers = {path: Space(index * GIB + GIB, 0, GIB) for index, path in enumerate(volumes)}
    machine.answers |= {"/": Space(1, 0, 1), "/zdata": Space(2, 0, 2)}
    heartbeat = machine.collector().collect()
    names = [filesystem.mountpoint for filesystem in heartbeat.filesystems]
    assert names == sorted(["/", "/zdata", *volumes[8:]])
    assert list(heartbeat.left_out) == [pb.LeftOut(collector="filesystem", count=8)]


def test_forty_filesystems_fit(machine: Machine) -> None:
    names = [f"/disk{index:02}" for index in range(40)]
    machine.mount(ROOT, *(f"{10 + i} 1 8:{50 + i} / {name} rw - xfs /dev/sd{i} rw" for i, name in enumerate(names)))
    machine.answers |= dict.fromkeys(names, DATA_SPACE)
    heartbeat = machine.collector().collect()
    assert len(heartbeat.filesystems) == 41
    assert not heartbeat.left_out
    assert heartbeat.ByteSize() < 8 * 1024


# Read-only


@pytest.mark.parametrize(
    ("fstab", "line", "state"),
    [
        ("", "2 1 8:2 / /data ro - ext4 /dev/sda2 ro", "ok"),
        ("/dev/sda2 /data ext4 ro,noatime 0 2", "2 1 8:2 / /data ro - ext4 /dev/sda2 ro", "ok"),
        ("/dev/sda2 /data ext4 errors=remount-ro 0 2", "2 1 8:2 / /data ro - ext4 /dev/sda2 ro", "read_only"),
        ("/dev/sda2 /data ext4 defaults 0 2", "2 1 8:2 / /data ro - ext4 /dev/sda2 rw", "ok"),
        ("", "2 1 8:2 / /data rw - ext4 /dev/sda2 rw,emergency_ro", "read_only"),
    ],
    ids=["nobody-says", "meant", "should-be-writable", "only-this-mount", "the-kernel-says"],
)
def test_read_only_filesystem(machine: Machine, tmp_path: Path, fstab: str, line: str, state: str) -> None:
    (tmp_path / "fstab").write_text(fstab + "\n")
    machine.mount(ROOT, line)
    data = read(machine.collector(fstab=tmp_path / "fstab"))["/data"]
    assert data.state == state
    assert bool(data.state_reason) == (state == "read_only")


def test_filesystem_that_becomes_read_only(machine: Machine) -> None:
    collector = machine.collector()
    assert states(collector) == {"/": "ok", "/data": "ok"}
    machine.mount(ROOT, DATA.removesuffix("rw") + "ro")
    data = read(collector)["/data"]
    assert (data.state, data.state_reason, data.is_read_only) == ("read_only", "it was writable before", True)
    machine.mount(ROOT)
    collector.collect()
    machine.mount(ROOT, DATA.removesuffix("rw") + "ro")
    assert states(collector) == {"/": "ok", "/data": "ok"}


# This machine


def test_space_as_df_has_it() -> None:
    now = os.statvfs("/")
    space = read_space("/", None)
    assert space is not None
    assert space.size_bytes == now.f_blocks * now.f_frsize
    assert space.used_bytes == pytest.approx((now.f_blocks - now.f_bfree) * now.f_frsize, abs=0.05 * space.size_bytes)
    assert space.available_bytes == pytest.approx(now.f_bavail * now.f_frsize, abs=0.05 * space.size_bytes)


def test_file_and_nothing_have_no_space(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_space(str(tmp_path / "file"), None) is None
    assert read_space(str(tmp_path / "nothing"), None) is None


def test_another_filesystem_than_expected_has_no_space(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    assert read_space(str(tmp_path), f"{os.major(device)}:{os.minor(device)}") is not None
    assert read_space(str(tmp_path), "250:250") is None


def test_root_of_this_machine_is_reported() -> None:
    assert FilesystemCollector().collect().filesystems[0].mountpoint == "/"
