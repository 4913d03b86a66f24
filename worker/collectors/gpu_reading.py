"""Reads one GPU, each field by itself: what a device does not support is absent, and spoils nothing else."""

from collections.abc import Callable
from typing import TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.nvml import (
    DEVICE_GONE,
    LIBRARY_GONE,
    MEMORY_V2,
    OLDER_DRIVER,
    TEMPERATURE_GPU,
    MemoryInfo,
    Nvml,
    error_code,
)

_T = TypeVar("_T")

_ALL_OF_IT_PERCENT = 100
_MILLIWATTS_PER_WATT = 1000.0


def read_gpu(nvml: Nvml, index: int) -> pb.Gpu:
    """One GPU, index from 0. Raises ``nvml.NVMLError`` when the device itself, or all of NVML, is gone.

    On a GPU that is divided (MIG) the utilisation is absent: NVML does not give it for the whole device.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    gpu = pb.Gpu(index=index)
    _set_identity(nvml, handle, gpu)
    utilization = _attempt(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    if utilization is not None and utilization <= _ALL_OF_IT_PERCENT:
        gpu.utilization_percent = utilization
    memory = _attempt(nvml, lambda: _memory(nvml, handle))
    if memory is not None:
        gpu.memory_used_bytes, gpu.memory_size_bytes = memory.used, memory.total
    temperature = _attempt(nvml, lambda: _temperature(nvml, handle))
    if temperature is not None:
        gpu.temperature_celsius = temperature
    power = _attempt(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    if power is not None:
        gpu.power_watts = power / _MILLIWATTS_PER_WATT
    return gpu


def _set_identity(nvml: Nvml, handle: object, gpu: pb.Gpu) -> None:
    uuid = _attempt(nvml, lambda: nvml.nvmlDeviceGetUUID(handle))
    name = _attempt(nvml, lambda: nvml.nvmlDeviceGetName(handle))
    gpu.uuid = _text(uuid)
    gpu.name = _text(name)


def _attempt(nvml: Nvml, read: Callable[[], _T]) -> _T | None:
    """None when this field cannot be had. An error that says that more than the field is gone goes through."""
    try:
        return read()
    except nvml.NVMLError as exc:
        if error_code(exc) in LIBRARY_GONE | DEVICE_GONE:
            raise
        return None
    except UnicodeDecodeError:  # pynvml decodes names strictly
        return None


def _memory(nvml: Nvml, handle: object) -> MemoryInfo:
    """Version 1 calls hundreds of megabytes of an idle GPU used, which no process uses and nvidia-smi does not show."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=MEMORY_V2)
    except nvml.NVMLError as exc:
        if error_code(exc) not in OLDER_DRIVER:
            raise
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _temperature(nvml: Nvml, handle: object) -> int:
    """By the function that NVIDIA recommends, else by the one that older drivers have."""
    try:
        return nvml.nvmlDeviceGetTemperatureV(handle, TEMPERATURE_GPU)
    except nvml.NVMLError as exc:
        if error_code(exc) not in OLDER_DRIVER:
            raise
        return nvml.nvmlDeviceGetTemperature(handle, TEMPERATURE_GPU)


def _text(text: str | bytes | None) -> str:
    """Older versions of pynvml give bytes. Empty when it could not be read."""
    if text is None:
        return ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
