"""worker.capacity"""

import os
from pathlib import Path

import pytest

from fleetpulse.worker.capacity import machine_capacity


def refuse() -> int:
    raise PermissionError(13, "Permission denied")


def test_what_the_machine_has() -> None:
    capacity = machine_capacity(3, logical_cores=lambda: 8, memory_bytes=lambda: 1024)
    assert (capacity.cpu_cores, capacity.memory_bytes, capacity.gpu_count) == (8.0, 1024, 3)


def test_no_gpu_is_zero_and_an_unknown_number_is_absent() -> None:
    assert machine_capacity(0).HasField("gpu_count")
    assert not machine_capacity(None).HasField("gpu_count")


def test_what_cannot_be_found_out_is_absent(caplog: pytest.LogCaptureFixture) -> None:
    capacity = machine_capacity(logical_cores=lambda: None, memory_bytes=refuse)
    assert not capacity.HasField("cpu_cores")
    assert not capacity.HasField("memory_bytes")
    assert "Permission denied" in caplog.text


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc/meminfo")
def test_this_machine() -> None:
    capacity = machine_capacity()
    assert capacity.cpu_cores == os.cpu_count()
    total_kibibytes = int(Path("/proc/meminfo").read_text().split()[1])
    assert capacity.memory_bytes == total_kibibytes * 1024
