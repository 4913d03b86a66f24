"""worker.collectors.memory"""

from pathlib import Path
from typing import NamedTuple

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.memory import MemoryCollector


class Main(NamedTuple):
    total: int
    available: int


class Swap(NamedTuple):
    total: int
    free: int


def memory_report(main: Main, swap: Swap) -> pb.Memory:
    return MemoryCollector(lambda: main, lambda: swap).collect().memory


def test_used_memory_is_total_less_available() -> None:
    report = memory_report(Main(total=1000, available=700), Swap(total=500, free=450))
    assert (report.used_bytes, report.size_bytes) == (300, 1000)
    assert (report.swap_used_bytes, report.swap_size_bytes) == (50, 500)


def test_unused_swap_is_zero_and_missing_swap_is_absent() -> None:
    unused = memory_report(Main(1000, 700), Swap(total=500, free=500))
    assert unused.HasField("swap_used_bytes")
    assert unused.swap_used_bytes == 0
    none = memory_report(Main(1000, 700), Swap(total=0, free=0))
    assert not none.HasField("swap_used_bytes")
    assert not none.HasField("swap_size_bytes")


def test_used_is_zero_when_available_exceeds_total() -> None:
    assert memory_report(Main(total=1000, available=1200), Swap(0, 0)).used_bytes == 0


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
