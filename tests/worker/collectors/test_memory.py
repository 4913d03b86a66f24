"""worker.collectors.memory"""

from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.memory import MemoryCollector, MemoryUnreadable


@pytest.fixture
def machine(tmp_path: Path) -> "Machine":
    return Machine(tmp_path)


class Machine:
    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.proc.mkdir()

    def memory(self, **kibibytes: int) -> pb.Memory:
        (self.proc / "meminfo").write_text("".join(f"{name}: {value:>9} kB\n" for name, value in kibibytes.items()))
        return MemoryCollector(self.proc, self.sys).collect().memory

    def counters(self, total: int, available: int, swap_total: int, swap_free: int) -> pb.Memory:
        return self.memory(MemTotal=total, MemAvailable=available, SwapTotal=swap_total, SwapFree=swap_free)

    def cgroup(self, **files: object) -> None:
        folder = self.sys / "fs" / "cgroup"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_used_memory_is_total_less_available(machine: Machine) -> None:
    memory = machine.counters(1000, 700, 500, 450)
    assert (memory.used_bytes, memory.size_bytes) == (300 * 1024, 1000 * 1024)
    assert (memory.swap_used_bytes, memory.swap_size_bytes) == (50 * 1024, 500 * 1024)


def test_unused_swap_is_zero_and_missing_swap_is_absent(machine: Machine) -> None:
    unused = machine.counters(1000, 700, 500, 500)
    assert unused.HasField("swap_used_bytes")
    assert unused.swap_used_bytes == 0
    none = machine.counters(1000, 700, 0, 0)
    assert not none.HasField("swap_used_bytes")
    assert not none.HasField("swap_size_bytes")


def test_used_is_zero_when_available_exceeds_total(machine: Machine) -> None:
    assert machine.counters(1000, 1200, 0, 0).used_bytes == 0


def test_kernel_without_available_memory_counts_what_it_can_drop(machine: Machine) -> None:
    memory = machine.memory(MemTotal=1000, MemFree=100, Buffers=10, Cached=300, SReclaimable=40, Shmem=50)
    assert memory.used_bytes == 600 * 1024


def test_meminfo_without_a_size_is_an_error(machine: Machine) -> None:
    with pytest.raises(MemoryUnreadable, match="no MemTotal"):
        machine.memory(MemFree=1)


def test_limit_and_working_set_of_a_cgroup_count_below_the_size_of_the_machine(machine: Machine) -> None:
    machine.cgroup(memory__max=512 * 1024, memory__current=400 * 1024, memory__stat=f"inactive_file {100 * 1024}")
    memory = machine.counters(1000, 700, 500, 450)
    assert (memory.used_bytes, memory.size_bytes) == (300 * 1024, 512 * 1024)
    assert (memory.swap_used_bytes, memory.swap_size_bytes) == (50 * 1024, 500 * 1024)
    for unlimited in ("max", 2000 * 1024, "", "no number", 0):
        machine.cgroup(memory__max=unlimited)
        assert machine.counters(1000, 700, 0, 0).size_bytes == 1000 * 1024


def test_cgroup_without_statistics_counts_all_of_its_use(machine: Machine) -> None:
    machine.cgroup(memory__max=512 * 1024, memory__current=400 * 1024)
    assert machine.counters(1000, 700, 0, 0).used_bytes == 400 * 1024


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc/meminfo")
def test_memory_of_this_machine() -> None:
    memory = MemoryCollector().collect().memory
    kibibytes = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if "kB" in line
    }
    assert memory.size_bytes == kibibytes["MemTotal"] * 1024
    used = (kibibytes["MemTotal"] - kibibytes["MemAvailable"]) * 1024
    assert memory.used_bytes == pytest.approx(used, abs=0.1 * memory.size_bytes)
    assert memory.HasField("swap_size_bytes") == (kibibytes["SwapTotal"] > 0)
