"""worker.capacity"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.capacity import STEADY_ROUNDS, GpuAwareTasks, GpuRegistration, machine_capacity
from fleetpulse.worker.collectors.gpu import GpuCollector, GpuInventory
from fleetpulse.worker.tasks.executor import DisabledExecutor
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml

TWO = GpuInventory(2, ("GPU-a", "GPU-b"))
ONE = GpuInventory(1, ("GPU-a",))


def refuse() -> int:
    raise PermissionError(13, "Permission denied")


def test_capacity_has_cores_memory_and_gpus() -> None:
    capacity = machine_capacity(TWO, logical_cores=lambda: 8, memory_bytes=lambda: 1024)
    assert capacity == pb.Capacity(cpu_cores=8.0, memory_bytes=1024, gpu_count=2, gpu_uuids=["GPU-a", "GPU-b"])


def test_capacity_without_gpus_has_zero_and_with_an_unknown_number_none() -> None:
    assert machine_capacity(GpuInventory()).HasField("gpu_count")
    assert not machine_capacity(None).HasField("gpu_count")


def test_unknown_part_of_the_capacity_is_absent(caplog: pytest.LogCaptureFixture) -> None:
    capacity = machine_capacity(logical_cores=lambda: None, memory_bytes=refuse)
    assert not capacity.HasField("cpu_cores")
    assert not capacity.HasField("memory_bytes")
    assert "Permission denied" in caplog.text


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc/meminfo")
def test_capacity_of_this_machine() -> None:
    capacity = machine_capacity()
    assert capacity.cpu_cores == os.cpu_count()
    total_kibibytes = int(Path("/proc/meminfo").read_text().split()[1])
    assert capacity.memory_bytes == total_kibibytes * 1024


# Changes of the GPUs


def is_changed(registration: GpuRegistration) -> bool:
    return registration._changed.is_set()


def test_gpus_that_are_found_after_the_registration_are_registered_at_once() -> None:
    capacity = machine_capacity(None)
    registration = GpuRegistration(capacity)
    registration.observe(None)
    assert not is_changed(registration)
    registration.observe(TWO)
    assert is_changed(registration)
    assert (capacity.gpu_count, list(capacity.gpu_uuids)) == (2, ["GPU-a", "GPU-b"])
    registration.sent()
    registration.observe(TWO)
    assert not is_changed(registration)


def test_lost_gpu_is_registered_when_several_readings_show_it() -> None:
    capacity = machine_capacity(TWO)
    registration = GpuRegistration(capacity)
    for seen in (ONE, TWO, ONE, None, *[ONE] * (STEADY_ROUNDS - 1)):
        registration.observe(seen)
        assert not is_changed(registration)
    registration.observe(ONE)
    assert is_changed(registration)
    assert list(capacity.gpu_uuids) == ["GPU-a"]


def test_session_registers_again_for_the_gpus() -> None:
    async def test() -> None:
        registration = GpuRegistration(machine_capacity(None))
        tasks = GpuAwareTasks(DisabledExecutor("off"), GpuCollector(FakeNvml()), registration)
        waiting = asyncio.ensure_future(tasks.must_register_again())
        await asyncio.sleep(0)
        assert not waiting.done()
        registration.observe(TWO)
        await asyncio.wait_for(waiting, 20.0)
        await tasks.describe(pb.Register())
        again = asyncio.ensure_future(tasks.must_register_again())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    asyncio.run(test())


# A drained worker


def test_drained_worker_lets_go_of_nvml_until_it_is_undrained() -> None:
    nvml = FakeNvml([FakeGpu()])
    gpu = GpuCollector(nvml)

    async def test() -> None:
        tasks = GpuAwareTasks(DisabledExecutor("off"), gpu, GpuRegistration(pb.Capacity()))
        steps: list[tuple[Callable[[], None], bool]] = [
            (lambda: tasks.registered(pb.Registered()), True),
            (lambda: tasks.receive(pb.MasterMessage(drain=pb.Drain(draining=True))), False),
            (lambda: tasks.receive(pb.MasterMessage(drain=pb.Drain())), True),
            (lambda: tasks.registered(pb.Registered(draining=True)), False),
            (lambda: tasks.registered(pb.Registered()), True),
        ]
        for step, is_used in steps:
            step()
            assert [reading.state for reading in gpu.collect().gpus] == ["ok" if is_used else ""]
            assert nvml.init_calls - nvml.shutdown_calls == int(is_used)

    asyncio.run(test())


def test_machine_without_a_driver_is_drained_too() -> None:
    gpu = GpuCollector(FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    gpu.release(is_released=True)
    assert not gpu.collect().gpus
