"""worker.collectors.gpu"""

import logging
import threading
from pathlib import Path

import pynvml
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.gpu import (
    DEVICE_GONE,
    LIBRARY_GONE,
    NO_DRIVER,
    GpuCollector,
    GpuUnavailable,
    error_code,
    read_gpu,
)
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml, FakeNvmlError

ROUND_SECONDS = 5.0


class Machine:
    """A collector over a fake NVML, and the time, which moves by one heartbeat before each round."""

    def __init__(self, *devices: FakeGpu, init_error: int | None = None) -> None:
        self.nvml = FakeNvml(devices, init_error=init_error)
        self.now_seconds = 1000.0
        self.collector = GpuCollector(self.nvml, clock=lambda: self.now_seconds)

    def round(self) -> list[pb.Gpu]:
        self.now_seconds += ROUND_SECONDS
        return list(self.collector.collect().gpus)

    def rounds_for(self, seconds: float) -> None:
        """Rounds whose results do not matter."""
        for _ in range(int(seconds / ROUND_SECONDS)):
            try:
                self.round()
            except GpuUnavailable:
                continue


def two_gpus() -> tuple[FakeGpu, FakeGpu]:
    return FakeGpu(uuid="GPU-a", name="A"), FakeGpu(uuid="GPU-b", name="B")


def test_every_gpu_is_read_with_one_initialization() -> None:
    machine = Machine(*two_gpus())
    machine.rounds_for(600.0)
    gpus = machine.round()
    assert [(gpu.index, gpu.uuid, gpu.utilization_percent) for gpu in gpus] == [(0, "GPU-a", 37.0), (1, "GPU-b", 37.0)]
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls) == (1, 0)
    assert machine.collector.device_count == 2


def test_nvml_is_not_called_before_the_first_collect() -> None:
    machine = Machine(*two_gpus())
    assert machine.collector.device_count is None
    assert machine.nvml.init_calls == 0


def test_driver_without_devices_gives_an_empty_report() -> None:
    machine = Machine()
    assert machine.round() == []
    assert machine.collector.device_count == 0


@pytest.mark.parametrize("reason", sorted(NO_DRIVER))
def test_missing_driver_gives_an_empty_report_and_is_tried_every_five_minutes(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    assert machine.round() == []
    assert machine.collector.device_count == 0
    machine.rounds_for(295.0)
    assert machine.nvml.init_calls == 1
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.collector.device_count == 2


@pytest.mark.parametrize(
    "reason", [pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN]
)
def test_unusable_driver_raises_and_is_tried_every_half_minute(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    for _ in range(6):
        with pytest.raises(GpuUnavailable, match=f"cannot be initialised: NVML error {reason}"):
            machine.round()
        assert machine.nvml.init_calls == 1
    assert machine.collector.device_count is None
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_driver_that_becomes_unusable_makes_the_device_count_unknown() -> None:
    machine = Machine(*two_gpus(), init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    machine.round()
    assert machine.collector.device_count == 0
    machine.nvml.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    machine.rounds_for(300.0)
    assert machine.collector.device_count is None


def test_driver_reload_costs_one_round() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    assert machine.collector.device_count is None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2
    assert machine.collector.device_count == 2


def test_nvml_is_initialized_in_the_round_after_each_reload() -> None:
    machine = Machine(*two_gpus())
    for reloads in range(3):
        machine.round()
        machine.nvml.reload_driver()
        with pytest.raises(GpuUnavailable):
            machine.round()
        assert machine.nvml.init_calls == reloads + 1
    assert len(machine.round()) == 2


def test_reload_noticed_at_a_device_counts_as_driver_loss() -> None:
    unaware, aware = two_gpus()
    machine = Machine(unaware, aware)
    machine.round()
    aware.failing["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_UNINITIALIZED
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    aware.failing.clear()
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_driver_lost_again_before_a_reading_is_tried_every_half_minute() -> None:
    gpu = FakeGpu(failing={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_UNINITIALIZED})
    machine = Machine(gpu)
    machine.rounds_for(30.0)
    assert machine.nvml.init_calls == 1
    machine.rounds_for(10.0)
    assert machine.nvml.init_calls == 2
    gpu.failing.clear()
    assert len(machine.round()) == 1
    machine.rounds_for(600.0)
    assert machine.nvml.init_calls == 2


def test_driver_that_disappears_raises() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.nvml.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    for _ in range(4):
        with pytest.raises(GpuUnavailable):
            machine.round()
    assert machine.collector.device_count is None
    assert machine.nvml.init_calls == 2
    machine.nvml.init_error = None
    machine.rounds_for(30.0)
    assert len(machine.round()) == 2


def test_lost_gpu_is_reported_by_identity_and_the_other_with_readings() -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    first, second = machine.round()
    assert first == pb.Gpu(index=0, uuid="GPU-a", name="A")
    assert (second.uuid, second.utilization_percent) == ("GPU-b", 37.0)
    assert machine.collector.device_count == 2


def test_lost_gpu_is_searched_in_the_next_round_and_then_rarely() -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    machine.round()
    assert machine.nvml.init_calls == 1
    machine.round()
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls) == (2, 1)
    machine.rounds_for(295.0)
    assert machine.nvml.init_calls == 2
    lost.gone = False
    assert [gpu.HasField("utilization_percent") for gpu in machine.round()] == [True, True]
    assert machine.nvml.init_calls == 3


def test_gpu_that_never_answered_is_left_out() -> None:
    forbidden, healthy = two_gpus()
    forbidden.failing["nvmlDeviceGetHandleByIndex"] = pynvml.NVML_ERROR_NO_PERMISSION
    machine = Machine(forbidden, healthy)
    machine.rounds_for(600.0)
    assert [gpu.index for gpu in machine.round()] == [1]
    assert machine.nvml.init_calls == 1  # a new one would not help


def test_collect_raises_when_no_gpu_answers() -> None:
    lost = FakeGpu()
    machine = Machine(lost)
    machine.round()
    lost.gone = True
    with pytest.raises(GpuUnavailable, match="no GPU answers: NVML error 15"):
        machine.round()
    assert machine.collector.device_count == 1
    lost.gone = False
    assert len(machine.round()) == 1


def test_silent_and_returning_gpu_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    with caplog.at_level(logging.INFO):
        machine.rounds_for(50.0)
        assert caplog.messages == ["GPU 0 does not answer: NVML error 15"]
        lost.gone = False
        machine.rounds_for(400.0)
    assert caplog.messages[1:] == ["GPU 0 answers again, or is no longer counted"]


def test_collect_after_shutdown_initializes_again() -> None:
    machine = Machine(*two_gpus())
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 0
    machine.round()
    machine.collector.shutdown()
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 1
    machine.now_seconds += 1000.0
    assert len(machine.round()) == 2


def test_shutdown_after_a_driver_reload() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 1


class HangingNvml(FakeNvml):
    """A driver that does not return from a call until it is released."""

    def __init__(self) -> None:
        super().__init__([FakeGpu()])
        self.entered = threading.Event()
        self.released = threading.Event()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the name is NVIDIA's
        self.entered.set()
        self.released.wait()
        return super().nvmlDeviceGetCount()


def test_device_count_and_shutdown_do_not_hang_with_a_reading() -> None:
    library = HangingNvml()
    collector = GpuCollector(library)
    reading = threading.Thread(target=collector.collect)
    reading.start()
    try:
        assert library.entered.wait(10.0)
        collector.shutdown()
        assert library.shutdown_calls == 0
        assert collector.device_count is None
    finally:
        library.released.set()
        reading.join()
    assert collector.device_count == 1


def test_the_real_binding_on_this_machine() -> None:
    gpus = list(Path("/proc/driver/nvidia/gpus").glob("*"))
    collector = GpuCollector(pynvml)
    try:
        assert len(collector.collect().gpus) <= len(gpus)
        assert collector.device_count is not None
    finally:
        collector.shutdown()


# The readings of one GPU

GIB = 1024**3
READINGS = ("utilization_percent", "memory_used_bytes", "memory_size_bytes", "temperature_celsius", "power_watts")


def read(gpu: FakeGpu, missing_functions: tuple[str, ...] = ()) -> pb.Gpu:
    library = FakeNvml([gpu], missing_functions=missing_functions)
    library.nvmlInit()
    return read_gpu(library, 0)


def present(gpu: pb.Gpu) -> set[str]:
    return {field.name for field, _ in gpu.ListFields()} & set(READINGS)


def test_every_field_is_read() -> None:
    gpu = read(FakeGpu(uuid="GPU-1", name="NVIDIA H100", power_milliwatts=312_500))
    assert (gpu.index, gpu.uuid, gpu.name) == (0, "GPU-1", "NVIDIA H100")
    assert gpu.utilization_percent == 37.0
    assert gpu.temperature_celsius == 54.0
    assert gpu.power_watts == 312.5
    assert (gpu.memory_used_bytes, gpu.memory_size_bytes) == (8 * GIB, 80 * GIB)


def test_idle_gpu_reads_zero_not_absent() -> None:
    gpu = read(FakeGpu(utilization_percent=0, memory_used_bytes=0, temperature_celsius=0, power_milliwatts=0))
    assert present(gpu) == set(READINGS)
    assert (gpu.utilization_percent, gpu.memory_used_bytes, gpu.temperature_celsius, gpu.power_watts) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization_percent"}),
        ("nvmlDeviceGetMemoryInfo_v2", {"memory_used_bytes", "memory_size_bytes"}),
        ("nvmlDeviceGetTemperatureV", {"temperature_celsius"}),
        ("nvmlDeviceGetPowerUsage", {"power_watts"}),
    ],
)
@pytest.mark.parametrize(
    "error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN]
)
def test_failing_field_is_absent_and_the_others_are_present(function: str, absent: set[str], error: int) -> None:
    assert present(read(FakeGpu(failing={function: error}))) == set(READINGS) - absent


def test_divided_gpu_has_no_utilization() -> None:
    gpu = read(FakeGpu(failing={"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NOT_SUPPORTED}))
    assert not gpu.HasField("utilization_percent")
    assert gpu.HasField("memory_used_bytes")


def test_utilization_over_100_percent_is_absent() -> None:
    assert not read(FakeGpu(utilization_percent=4_294_967_295)).HasField("utilization_percent")
    assert read(FakeGpu(utilization_percent=100)).utilization_percent == 100.0


def test_memory_reserved_by_the_driver_does_not_count_as_used() -> None:
    assert read(FakeGpu(memory_used_bytes=0, memory_reserved_bytes=GIB)).memory_used_bytes == 0


def test_older_driver_is_read_by_its_older_functions() -> None:
    older = FakeGpu(memory_reserved_bytes=0)
    gpu = read(older, missing_functions=("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV"))
    assert present(gpu) == set(READINGS)
    assert (gpu.memory_used_bytes, gpu.temperature_celsius) == (8 * GIB, 54.0)


def test_newer_driver_without_deprecated_functions_is_read() -> None:
    newer = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature")
    assert present(read(FakeGpu(), missing_functions=newer)) == set(READINGS)


def test_identity_may_be_bytes_or_missing() -> None:
    gpu = read(FakeGpu(uuid=b"GPU-1", name=b"caf\xe9"))
    assert (gpu.uuid, gpu.name) == ("GPU-1", "caf\ufffd")
    unnamed = read(FakeGpu(failing={"nvmlDeviceGetName": pynvml.NVML_ERROR_UNKNOWN}))
    assert unnamed.name == ""
    assert present(unnamed) == set(READINGS)


@pytest.mark.parametrize("error", sorted(LIBRARY_GONE | DEVICE_GONE))
@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetPowerUsage"])
def test_lost_device_or_library_raises(function: str, error: int) -> None:
    with pytest.raises(FakeNvmlError) as caught:
        read(FakeGpu(failing={function: error}))
    assert error_code(caught.value) == error
