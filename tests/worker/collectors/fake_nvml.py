# ruff: noqa: N802 - the names are NVIDIA's
"""A working ``pynvml`` without hardware: GPUs with faults to switch on.

It keeps the library's rules: nothing works before ``nvmlInit``, a driver reload makes every call fail until the next
one, a lost GPU comes back only after a new initialisation, and ``nvmlInit`` counts its callers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pynvml


class FakeNvmlError(Exception):
    """As ``pynvml.NVMLError``: the code is in ``value``."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class FakeMemoryInfo(NamedTuple):
    """Bytes."""

    total: int
    used: int


class FakeUtilization(NamedTuple):
    """Percent."""

    gpu: int
    memory: int


@dataclass(eq=False)
class FakeGpu:
    """A GPU and its readings, which a test may change at any time. It is its own handle."""

    uuid: str | bytes = "GPU-00000000-0000-0000-0000-000000000000"
    name: str | bytes = "Fake H100"
    utilization_percent: int = 37
    memory_used_bytes: int = 8 * 1024**3
    memory_reserved_bytes: int = 600 * 1024**2
    memory_size_bytes: int = 80 * 1024**3
    temperature_celsius: int = 54
    power_milliwatts: int = 312_500

    failing: dict[str, int] = field(default_factory=dict)
    """By the name of a function, the code that it raises for this device."""

    gone: bool = False
    """Off the bus: every call for it raises ``ERROR_GPU_IS_LOST``, until it is back and NVML initialised anew."""


class FakeNvml:
    """``devices`` are in the order of their indices. ``init_error`` is what ``nvmlInit`` raises, if anything."""

    NVMLError: type[Exception] = FakeNvmlError

    def __init__(
        self,
        devices: Sequence[FakeGpu] = (),
        *,
        init_error: int | None = None,
        missing_functions: Sequence[str] = (),
    ) -> None:
        """``missing_functions``: what an older driver lacks, by the names in its library."""
        self.devices = list(devices)
        self.init_error = init_error
        self.missing_functions = set(missing_functions)
        self.init_calls = 0
        self.shutdown_calls = 0
        self._users = 0
        self._lost: set[FakeGpu] = set()

    def reload_driver(self) -> None:
        """Whatever was initialised is so no longer."""
        self._users = 0

    def nvmlInit(self) -> None:
        self.init_calls += 1
        if self.init_error is not None:
            raise FakeNvmlError(self.init_error)
        if self._users == 0:
            self._lost.clear()
        self._users += 1

    def nvmlShutdown(self) -> None:
        self.shutdown_calls += 1
        self._require_initialized()
        self._users -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._require_initialized()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        self._require_initialized()
        if not 0 <= index < len(self.devices):
            raise FakeNvmlError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._device(self.devices[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes:
        return self._device(handle, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, handle: object) -> str | bytes:
        return self._device(handle, "nvmlDeviceGetName").name

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> FakeUtilization:
        return FakeUtilization(gpu=self._device(handle, "nvmlDeviceGetUtilizationRates").utilization_percent, memory=5)

    def nvmlDeviceGetMemoryInfo(self, handle: object, version: int | None = None) -> FakeMemoryInfo:
        function = "nvmlDeviceGetMemoryInfo" if version is None else "nvmlDeviceGetMemoryInfo_v2"
        device = self._device(handle, function)
        reserved = device.memory_reserved_bytes if version is None else 0
        return FakeMemoryInfo(total=device.memory_size_bytes, used=device.memory_used_bytes + reserved)

    def nvmlDeviceGetTemperatureV(self, handle: object, sensor: int) -> int:
        return self._sensor(handle, "nvmlDeviceGetTemperatureV", sensor)

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        return self._sensor(handle, "nvmlDeviceGetTemperature", sensor)

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        return self._device(handle, "nvmlDeviceGetPowerUsage").power_milliwatts

    def _sensor(self, handle: object, function: str, sensor: int) -> int:
        device = self._device(handle, function)
        if sensor != pynvml.NVML_TEMPERATURE_GPU:
            raise FakeNvmlError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return device.temperature_celsius

    def _device(self, handle: object, function: str) -> FakeGpu:
        self._require_initialized()
        if function in self.missing_functions:
            raise FakeNvmlError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        if not isinstance(handle, FakeGpu):
            raise FakeNvmlError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        if handle.gone or handle in self._lost:
            self._lost.add(handle)
            raise FakeNvmlError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if function in handle.failing:
            raise FakeNvmlError(handle.failing[function])
        return handle

    def _require_initialized(self) -> None:
        if self._users == 0:
            raise FakeNvmlError(pynvml.NVML_ERROR_UNINITIALIZED)
