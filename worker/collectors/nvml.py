# ruff: noqa: N802 - the names are NVIDIA's
"""The part of NVIDIA's management library (NVML) that is used here, and what its error codes mean for a reader.

``Nvml`` is met by the module ``pynvml`` of nvidia-ml-py 13 and by ``FakeNvml``. Every function raises ``NVMLError``.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from typing import Protocol

TEMPERATURE_GPU = 0
"""``NVML_TEMPERATURE_GPU``: the sensor on the die."""

MEMORY_V2 = 0x02000028
"""``nvmlMemory_v2``: asks for the struct that keeps what the driver reserves apart from what is used."""

ERROR_UNINITIALIZED = 1
ERROR_INVALID_ARGUMENT = 2
ERROR_NOT_SUPPORTED = 3
ERROR_NO_PERMISSION = 4
ERROR_DRIVER_NOT_LOADED = 9
ERROR_LIBRARY_NOT_FOUND = 12
ERROR_FUNCTION_NOT_FOUND = 13
ERROR_GPU_IS_LOST = 15
ERROR_RESET_REQUIRED = 16
ERROR_LIB_RM_VERSION_MISMATCH = 18
ERROR_ARGUMENT_VERSION_MISMATCH = 25
ERROR_UNKNOWN = 999

NO_DRIVER = frozenset({ERROR_LIBRARY_NOT_FOUND, ERROR_DRIVER_NOT_LOADED})
"""What ``nvmlInit`` answers on a machine that has nothing to do with NVIDIA."""

LIBRARY_GONE = frozenset({ERROR_UNINITIALIZED, ERROR_DRIVER_NOT_LOADED, ERROR_LIB_RM_VERSION_MISMATCH})
"""No call can succeed until NVML has been initialised again: the driver was reloaded or replaced."""

DEVICE_GONE = frozenset({ERROR_GPU_IS_LOST, ERROR_RESET_REQUIRED})
"""One GPU is off the bus or must be reset. When it is back, only a new initialisation finds it."""

OLDER_DRIVER = frozenset({ERROR_FUNCTION_NOT_FOUND, ERROR_ARGUMENT_VERSION_MISMATCH})
"""The driver is older than the function or than the struct that was asked for."""


class MemoryInfo(Protocol):
    """Bytes. In version 1 ``used`` includes what the driver reserves for itself, in version 2 it does not."""

    @property
    def total(self) -> int: ...
    @property
    def used(self) -> int: ...


class Utilization(Protocol):
    """Percent of the past sample period (a sixth of a second to a second)."""

    @property
    def gpu(self) -> int:
        """Time in which a kernel ran. (Its neighbour ``memory`` is bus time, not memory used.)"""
        ...


class Nvml(Protocol):
    """The functions of ``pynvml`` that a reader needs. A handle is good until ``nvmlShutdown``."""

    @property
    def NVMLError(self) -> type[Exception]:
        """Raised by every function; ``value`` is one of the codes above."""
        ...

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...
    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: object) -> str | bytes: ...
    def nvmlDeviceGetUtilizationRates(self, handle: object) -> Utilization: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object, version: int | None = None) -> MemoryInfo: ...
    def nvmlDeviceGetTemperatureV(self, handle: object, sensor: int) -> int:
        """Degrees Celsius. Not in drivers before R570 or so."""
        ...

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        """Degrees Celsius. Deprecated, to be removed in CUDA 14."""
        ...

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        """Milliwatts."""
        ...


def error_code(error: BaseException) -> int:
    """The code that an ``NVMLError`` carries."""
    return int(getattr(error, "value", ERROR_UNKNOWN))
