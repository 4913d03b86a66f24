"""worker.collectors.memory"""

from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.memory import MemoryCollector, MemoryCounters


def memory_of(*counters: int) -> pb.Memory:
    return MemoryCollector(lambda: MemoryCounters(*counters)).collect().memory


def test_used_memory_is_total_less_available() -> None:
    memory = memory_of(1000, 700, 500, 450)
    assert (memory.used_bytes, memory.size_bytes) == (300, 1000)
    assert (memory.swap_used_bytes, memory.swap_size_bytes) == (50, 500)


def test_unused_swap_is_zero_and_missing_swap_is_absent() -> None:
    unused = memory_of(1000, 700, 500, 500)
    assert unused.HasField("swap_used_bytes")
    assert unused.swap_used_bytes == 0
    none = memory_of(1000, 700, 0, 0)
    assert not none.HasField("swap_used_bytes")
    assert not none.HasField("swap_size_bytes")


def test_used_is_zero_when_available_exceeds_total() -> None:
    assert memory_of(1000, 1200, 0, 0).used_bytes == 0


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
