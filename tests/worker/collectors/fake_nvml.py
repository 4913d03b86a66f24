# ruff: noqa: N802, N803, N815, A002 - the names are NVIDIA's
"""A working ``pynvml`` without hardware: GPUs with faults to switch on.

It keeps the library's rules: nothing works before ``nvmlInit``, a driver reload makes every call fail until the next
one, a lost GPU comes back only after a new initialisation, and ``nvmlInit`` counts its callers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
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


class FakeProcess(NamedTuple):
    """As ``c_nvmlProcessInfo_t``."""

    pid: int
    usedGpuMemory: int | None


class FakeEvent(NamedTuple):
    """As ``c_nvmlEventData_t``."""

    device: object
    eventType: int
    eventData: int


@dataclass(eq=False)
class FakeEventSet:
    """The devices that it listens to."""

    devices: "list[FakeGpu]" = field(default_factory=list)


class FakeFieldNumber(NamedTuple):
    """As ``c_nvmlValue_t``, of an unsigned long long."""

    ullVal: int


class FakeField(NamedTuple):
    """As ``c_nvmlFieldValue_t``."""

    nvmlReturn: int
    value: FakeFieldNumber


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
    power_limit_milliwatts: int = 700_000
    clock_megahertz: int = 1980
    memory_clock_megahertz: int = 2619
    encoder_percent: int = 3
    decoder_percent: int = 4
    clock_event_reasons: int = 0
    ecc_corrected: int = 0
    ecc_uncorrected: int = 0
    compute: dict[int, int | None] = field(default_factory=dict)
    """Memory by process; ``None`` where the driver does not say."""
    graphics: dict[int, int | None] = field(default_factory=dict)
    parts: "list[FakeGpu] | None" = None
    """Of a divided GPU. A gap in the numbers is one that was never made."""
    xids: list[int] = field(default_factory=list)
    """Errors that the driver has not told yet; it tells each once, also of a device that is gone."""
    fields: dict[int, int] = field(default_factory=dict)
    """By the number of a field; any other is not supported."""

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
        before_call: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``missing_functions``: what an older driver lacks, by the names in its library.

        ``before_call`` gets the name of each function that is called for a device; it may take its time.
        """
        self.devices = list(devices)
        self.init_error = init_error
        self.missing_functions = set(missing_functions)
        self.calls: Counter[str] = Counter()
        """Calls for devices, by the names in the library."""
        self._before_call = before_call
        self.event_sets = 0
        """That were made and not freed."""
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

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: object) -> list[FakeProcess]:
        device = self._device(handle, "nvmlDeviceGetComputeRunningProcesses_v3")
        return [FakeProcess(*item) for item in device.compute.items()]

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: object) -> list[FakeProcess]:
        device = self._device(handle, "nvmlDeviceGetComputeRunningProcesses_v2")
        return [FakeProcess(*item) for item in device.compute.items()]

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: object) -> list[FakeProcess]:
        device = self._device(handle, "nvmlDeviceGetGraphicsRunningProcesses_v3")
        return [FakeProcess(*item) for item in device.graphics.items()]

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: object) -> list[FakeProcess]:
        device = self._device(handle, "nvmlDeviceGetGraphicsRunningProcesses_v2")
        return [FakeProcess(*item) for item in device.graphics.items()]

    def nvmlDeviceGetMigMode(self, device: object) -> list[int]:
        is_divided = self._device(device, "nvmlDeviceGetMigMode").parts is not None
        return [int(is_divided), int(is_divided)]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: object) -> int:
        self._device(device, "nvmlDeviceGetMaxMigDeviceCount")
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: object, index: int) -> object:
        parts = self._device(device, "nvmlDeviceGetMigDeviceHandleByIndex").parts or []
        if index >= len(parts):
            raise FakeNvmlError(pynvml.NVML_ERROR_NOT_FOUND)
        return parts[index]

    def nvmlEventSetCreate(self) -> FakeEventSet:
        self._require_initialized()
        self.event_sets += 1
        return FakeEventSet()

    def nvmlEventSetFree(self, eventSet: FakeEventSet) -> None:
        self._require_initialized()
        self.event_sets -= 1

    def nvmlDeviceRegisterEvents(self, handle: object, eventTypes: int, eventSet: FakeEventSet) -> None:
        device = self._device(handle, "nvmlDeviceRegisterEvents")
        assert eventTypes == pynvml.nvmlEventTypeXidCriticalError
        eventSet.devices.append(device)

    def nvmlEventSetWait_v2(self, eventSet: FakeEventSet, timeoutms: int) -> FakeEvent:
        self._require_initialized()
        assert timeoutms == 0, "a reading must not wait"
        for device in eventSet.devices:
            if device.xids:
                return FakeEvent(device, pynvml.nvmlEventTypeXidCriticalError, device.xids.pop(0))
        raise FakeNvmlError(pynvml.NVML_ERROR_TIMEOUT)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: object) -> int:
        return self._device(handle, "nvmlDeviceGetEnforcedPowerLimit").power_limit_milliwatts

    def nvmlDeviceGetClockInfo(self, handle: object, type: int) -> int:
        device = self._device(handle, "nvmlDeviceGetClockInfo")
        clocks = {
            pynvml.NVML_CLOCK_SM: device.clock_megahertz,
            pynvml.NVML_CLOCK_MEM: device.memory_clock_megahertz,
        }
        return clocks[type]

    def nvmlDeviceGetEncoderUtilization(self, handle: object) -> list[int]:
        return [self._device(handle, "nvmlDeviceGetEncoderUtilization").encoder_percent, 167_000]

    def nvmlDeviceGetDecoderUtilization(self, handle: object) -> list[int]:
        return [self._device(handle, "nvmlDeviceGetDecoderUtilization").decoder_percent, 167_000]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: object) -> int:
        return self._device(handle, "nvmlDeviceGetCurrentClocksEventReasons").clock_event_reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:
        return self._device(handle, "nvmlDeviceGetCurrentClocksThrottleReasons").clock_event_reasons

    def nvmlDeviceGetTotalEccErrors(self, handle: object, errorType: int, counterType: int) -> int:
        device = self._device(handle, "nvmlDeviceGetTotalEccErrors")
        if counterType != pynvml.NVML_AGGREGATE_ECC:
            raise FakeNvmlError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        is_corrected = errorType == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        return device.ecc_corrected if is_corrected else device.ecc_uncorrected

    def nvmlDeviceGetFieldValues(self, handle: object, fieldIds: Sequence[int]) -> list[FakeField]:
        known = self._device(handle, "nvmlDeviceGetFieldValues").fields
        return [
            FakeField(
                pynvml.NVML_SUCCESS if number in known else pynvml.NVML_ERROR_NOT_SUPPORTED,
                FakeFieldNumber(known.get(number, 0)),
            )
            for number in fieldIds
        ]

    def _sensor(self, handle: object, function: str, sensor: int) -> int:
        device = self._device(handle, function)
        if sensor != pynvml.NVML_TEMPERATURE_GPU:
            raise FakeNvmlError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return device.temperature_celsius

    def _device(self, handle: object, function: str) -> FakeGpu:
        self._require_initialized()
        self.calls[function] += 1
        self._before_call(function)
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
