# ruff: noqa: N802 - the names are NVIDIA's
"""NVIDIA's management library (NVML): the functions used here, its error codes, and when it is initialised.

The module ``pynvml`` of nvidia-ml-py 13 implements ``Nvml``. Every function raises ``NVMLError``.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from fleetpulse.worker.collectors import CollectorError

_LOGGER = logging.getLogger(__name__)

TEMPERATURE_GPU = 0
"""``NVML_TEMPERATURE_GPU``: the sensor on the die."""

MEMORY_V2 = 0x02000028
"""``nvmlMemory_v2``: the struct that keeps what the driver reserves apart from what is used."""

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
"""``nvmlInit`` on a machine without an NVIDIA driver."""

LIBRARY_GONE = frozenset({ERROR_UNINITIALIZED, ERROR_DRIVER_NOT_LOADED, ERROR_LIB_RM_VERSION_MISMATCH})
"""The driver was reloaded or replaced: no call succeeds until NVML is initialised again."""

DEVICE_GONE = frozenset({ERROR_GPU_IS_LOST, ERROR_RESET_REQUIRED})
"""One GPU is off the bus or must be reset. When it is back, only a new initialisation finds it."""

OLDER_DRIVER = frozenset({ERROR_FUNCTION_NOT_FOUND, ERROR_ARGUMENT_VERSION_MISMATCH})
"""The driver is older than the function or the struct."""


class GpuUnavailable(CollectorError):
    """An NVIDIA driver is or was there and cannot be used. ``__cause__`` is the ``NVMLError``."""


class Nvml(Protocol):
    """The functions of ``pynvml`` that are used. A handle is valid until ``nvmlShutdown``."""

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
    def nvmlDeviceGetUtilizationRates(self, handle: object) -> Any:
        """``gpu``: percent of the past sample period (up to a second) in which a kernel ran."""
        ...

    def nvmlDeviceGetMemoryInfo(self, handle: object, version: int | None = None) -> Any:
        """``total`` and ``used``, bytes. In version 1 ``used`` includes what the driver reserves for itself."""
        ...

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
    """The code of an ``NVMLError``."""
    return int(getattr(error, "value", ERROR_UNKNOWN))


class NvmlSession:
    """Initialises NVML once, and again only for a reason: it costs tens of milliseconds and may wake a sleeping GPU.

    * After a first loss: at the next ``open``.
    * While ``nvmlInit`` fails: every ``retry_seconds``.
    * Without a driver, or while a new initialisation does not bring a lost device back: every ``rare_retry_seconds``.

    Used from one thread at a time.
    """

    def __init__(
        self,
        nvml: Nvml,
        clock: Callable[[], float] = time.monotonic,
        *,
        retry_seconds: float = 30.0,
        rare_retry_seconds: float = 300.0,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._rare_retry_seconds = rare_retry_seconds
        self._is_initialized = False
        self._needs_init = True
        self._earliest_init = -math.inf
        self._failure: Exception | None = None

    def open(self, *, driver_expected: bool) -> bool:
        """Whether NVML can be called; ``False`` on a machine without a driver.

        ``driver_expected``: the driver was there before, so its absence is a failure. Raises ``GpuUnavailable``.
        """
        if self._needs_init and self._clock() >= self._earliest_init:
            self.close()
            self._initialize(driver_expected)
        if self._failure is not None:
            raise GpuUnavailable(f"NVML cannot be initialised: {self._failure}") from self._failure
        return self._is_initialized

    def mark_healthy(self) -> None:
        """No device is lost: the next loss counts as a first one."""
        self._needs_init = False
        self._earliest_init = -math.inf

    def mark_device_lost(self) -> None:
        """A device is gone; the others still answer."""
        self._needs_init = True

    def mark_library_lost(self) -> None:
        """No call can succeed any more."""
        self._needs_init = True
        self._earliest_init = min(self._earliest_init, self._clock() + self._retry_seconds)

    def close(self) -> None:
        """Shuts NVML down if it is initialised."""
        if not self._is_initialized:
            return
        self._is_initialized = False
        self._needs_init = True
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as exc:  # after a driver reload there is nothing to shut down
            _LOGGER.debug("nvmlShutdown: %s", exc)

    def _initialize(self, driver_expected: bool) -> None:
        self._failure = None
        wait_seconds = self._rare_retry_seconds
        try:
            self._nvml.nvmlInit()
            self._is_initialized, self._needs_init = True, False
        except self._nvml.NVMLError as exc:
            if driver_expected or error_code(exc) not in NO_DRIVER:
                self._failure, wait_seconds = exc, self._retry_seconds
        self._earliest_init = self._clock() + wait_seconds
