"""worker.collectors.nvml and its fake, compared with the real binding."""

import inspect

import pynvml
import pytest

from fleetpulse.worker.collectors import nvml
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml, FakeNvmlError

FUNCTIONS = sorted(name for name in vars(nvml.Nvml) if name.startswith("nvml"))


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pynvml_has_every_function_with_its_parameters(name: str) -> None:
    ours = parameters(getattr(nvml.Nvml, name))
    assert parameters(getattr(pynvml, name))[: len(ours)] == ours
    assert parameters(getattr(FakeNvml, name)) == ours


@pytest.mark.parametrize("name", sorted(name for name in vars(nvml) if name.startswith("ERROR_")))
def test_pynvml_has_the_same_error_codes(name: str) -> None:
    assert getattr(pynvml, f"NVML_{name}") == getattr(nvml, name)


def test_pynvml_has_the_same_constants() -> None:
    assert pynvml.NVML_TEMPERATURE_GPU == nvml.TEMPERATURE_GPU
    assert pynvml.nvmlMemory_v2 == nvml.MEMORY_V2


def test_error_code_is_read_from_the_error() -> None:
    assert nvml.error_code(pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)) == nvml.ERROR_GPU_IS_LOST
    assert nvml.error_code(FakeNvmlError(nvml.ERROR_GPU_IS_LOST)) == nvml.ERROR_GPU_IS_LOST
    assert nvml.error_code(ValueError()) == nvml.ERROR_UNKNOWN


def test_fake_refuses_calls_before_initialization() -> None:
    library = FakeNvml([FakeGpu()])
    with pytest.raises(FakeNvmlError) as caught:
        library.nvmlDeviceGetCount()
    assert nvml.error_code(caught.value) == nvml.ERROR_UNINITIALIZED


def test_fake_brings_a_lost_gpu_back_only_after_a_new_initialization() -> None:
    gpu = FakeGpu(gone=True)
    library = FakeNvml([gpu])
    library.nvmlInit()
    with pytest.raises(FakeNvmlError):
        library.nvmlDeviceGetHandleByIndex(0)
    gpu.gone = False
    with pytest.raises(FakeNvmlError):
        library.nvmlDeviceGetHandleByIndex(0)
    library.nvmlShutdown()
    library.nvmlInit()
    assert library.nvmlDeviceGetName(library.nvmlDeviceGetHandleByIndex(0)) == gpu.name
