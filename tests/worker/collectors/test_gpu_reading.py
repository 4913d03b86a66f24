"""worker.collectors.gpu_reading"""

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import nvml
from fleetpulse.worker.collectors.fake_nvml import FakeGpu, FakeNvml, FakeNvmlError
from fleetpulse.worker.collectors.gpu_reading import read_gpu

GIB = 1024**3
READINGS = ("utilization_percent", "memory_used_bytes", "memory_size_bytes", "temperature_celsius", "power_watts")


def read(gpu: FakeGpu, missing_functions: tuple[str, ...] = ()) -> pb.Gpu:
    library = FakeNvml([gpu], missing_functions=missing_functions)
    library.nvmlInit()
    return read_gpu(library, 0)


def present(gpu: pb.Gpu) -> set[str]:
    return {field.name for field, _ in gpu.ListFields()} & set(READINGS)


def test_every_field() -> None:
    gpu = read(FakeGpu(uuid="GPU-1", name="NVIDIA H100", power_milliwatts=312_500))
    assert (gpu.index, gpu.uuid, gpu.name) == (0, "GPU-1", "NVIDIA H100")
    assert gpu.utilization_percent == 37.0
    assert gpu.temperature_celsius == 54.0
    assert gpu.power_watts == 312.5
    assert (gpu.memory_used_bytes, gpu.memory_size_bytes) == (8 * GIB, 80 * GIB)


def test_an_idle_gpu_reads_zero_not_absent() -> None:
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
@pytest.mark.parametrize("error", [nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NO_PERMISSION, nvml.ERROR_UNKNOWN])
def test_what_cannot_be_had_is_absent_and_the_rest_is_not(function: str, absent: set[str], error: int) -> None:
    assert present(read(FakeGpu(failing={function: error}))) == set(READINGS) - absent


def test_a_divided_gpu_has_no_utilization() -> None:
    gpu = read(FakeGpu(failing={"nvmlDeviceGetUtilizationRates": nvml.ERROR_NOT_SUPPORTED}))
    assert not gpu.HasField("utilization_percent")
    assert gpu.HasField("memory_used_bytes")


def test_a_utilization_over_100_percent_is_no_reading() -> None:
    assert not read(FakeGpu(utilization_percent=4_294_967_295)).HasField("utilization_percent")
    assert read(FakeGpu(utilization_percent=100)).utilization_percent == 100.0


def test_memory_reserved_by_the_driver_is_not_used() -> None:
    assert read(FakeGpu(memory_used_bytes=0, memory_reserved_bytes=GIB)).memory_used_bytes == 0


def test_an_older_driver_answers_by_its_older_functions() -> None:
    older = FakeGpu(memory_reserved_bytes=0)
    gpu = read(older, missing_functions=("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV"))
    assert present(gpu) == set(READINGS)
    assert (gpu.memory_used_bytes, gpu.temperature_celsius) == (8 * GIB, 54.0)


def test_a_newer_driver_without_the_deprecated_functions() -> None:
    newer = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature")
    assert present(read(FakeGpu(), missing_functions=newer)) == set(READINGS)


def test_identity_in_bytes_and_missing_identity() -> None:
    gpu = read(FakeGpu(uuid=b"GPU-1", name=b"caf\xe9"))
    assert (gpu.uuid, gpu.name) == ("GPU-1", "caf\ufffd")
    unnamed = read(FakeGpu(failing={"nvmlDeviceGetName": nvml.ERROR_UNKNOWN}))
    assert unnamed.name == ""
    assert present(unnamed) == set(READINGS)


@pytest.mark.parametrize("error", sorted(nvml.LIBRARY_GONE | nvml.DEVICE_GONE))
@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetPowerUsage"])
def test_a_device_that_is_gone_is_not_a_device_without_readings(function: str, error: int) -> None:
    with pytest.raises(FakeNvmlError) as caught:
        read(FakeGpu(failing={function: error}))
    assert nvml.error_code(caught.value) == error
