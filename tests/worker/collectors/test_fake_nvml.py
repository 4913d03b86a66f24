"""The fake of NVML, compared with the real binding."""

import inspect

import pynvml
import pytest

from fleetpulse.worker.collectors.nvml import error_code
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml, FakeNvmlError

FUNCTIONS = sorted(name for name in vars(FakeNvml) if name.startswith("nvml"))


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pynvml_has_every_function_with_its_parameters(name: str) -> None:
    faked = parameters(getattr(FakeNvml, name))
    assert parameters(getattr(pynvml, name))[: len(faked)] == faked


def test_error_code_is_read_from_the_error() -> None:
    assert error_code(pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert error_code(FakeNvmlError(pynvml.NVML_ERROR_GPU_IS_LOST)) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert error_code(ValueError()) == pynvml.NVML_ERROR_UNKNOWN


def test_fake_refuses_calls_before_initialization() -> None:
    library = FakeNvml([FakeGpu()])
    with pytest.raises(FakeNvmlError) as caught:
        library.nvmlDeviceGetCount()
    assert error_code(caught.value) == pynvml.NVML_ERROR_UNINITIALIZED


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
