"""NVIDIA GPUs of this machine, through NVML; in a container those that were given to it.

The library is the module ``pynvml`` of nvidia-ml-py 13, or a fake with the same functions.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import CollectorError

_LOGGER = logging.getLogger(__name__)

_T = TypeVar("_T")

NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
"""``nvmlInit`` on a machine without an NVIDIA driver."""

LIBRARY_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""The driver was reloaded or replaced: no call succeeds until NVML is initialised again."""

DEVICE_GONE = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
"""One GPU is off the bus or must be reset. When it is back, only a new initialisation finds it."""

OLDER_DRIVER = frozenset({pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH})
"""The driver is older than the function or the struct."""


class GpuUnavailable(CollectorError):
    """An NVIDIA driver is or was there and cannot be used. ``__cause__`` is the ``NVMLError``."""


def error_code(error: BaseException) -> int:
    """The code of an ``NVMLError``."""
    return int(getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN))


class GpuCollector:
    """``gpus``, by index. A machine without an NVIDIA driver, or without devices, gives an empty report.

    A device that does not answer is reported with its last known identity and without readings, or not at all if it
    never answered. ``GpuUnavailable`` when none answers, and when the driver itself is gone.
    """

    name = "gpu"

    def __init__(self, nvml: Any = pynvml, clock: Callable[[], float] = time.monotonic) -> None:
        """``nvml`` is not called before the first ``collect``."""
        self._nvml = nvml
        self._session = NvmlSession(nvml, clock)
        self._device_count: int | None = None
        self._identities: dict[int, pb.Gpu] = {}
        self._silent: frozenset[int] = frozenset()
        self._in_use = threading.Lock()

    @property
    def device_count(self) -> int | None:
        """Devices at the last ``collect``; 0 without a driver, ``None`` before the first one and while NVML fails.

        For any thread. Does not call NVML, so it cannot hang.
        """
        return self._device_count

    def collect(self) -> pb.Heartbeat:
        with self._in_use:
            return pb.Heartbeat(gpus=self._read_gpus())

    def shutdown(self) -> None:
        """Shuts NVML down; a later ``collect`` starts it again. Does nothing while ``collect`` hangs in NVML."""
        if not self._in_use.acquire(blocking=False):
            _LOGGER.warning("NVML is not shut down: a reading of the GPUs has not returned")
            return
        try:
            self._session.close()
        finally:
            self._in_use.release()

    def _read_gpus(self) -> list[pb.Gpu]:
        self._device_count = None
        if not self._session.open(driver_expected=bool(self._identities)):
            self._device_count = 0
            return []
        try:
            count = self._nvml.nvmlDeviceGetCount()
            gpus, errors = self._read_each(count)
        except self._nvml.NVMLError as exc:
            self._session.mark_library_lost()
            raise GpuUnavailable(f"the NVIDIA driver was lost: {exc}") from exc
        self._device_count = count
        if any(error_code(error) in DEVICE_GONE for error in errors.values()):
            self._session.mark_device_lost()
        else:
            self._session.mark_healthy()
        self._log_changes(errors)
        self._identities.update({gpu.index: pb.Gpu(index=gpu.index, uuid=gpu.uuid, name=gpu.name) for gpu in gpus})
        if errors and not gpus:
            first = next(iter(errors.values()))
            raise GpuUnavailable(f"no GPU answers: {first}") from first
        remembered = [self._identities[index] for index in errors if index in self._identities]
        return sorted([*gpus, *remembered], key=lambda gpu: gpu.index)

    def _read_each(self, count: int) -> tuple[list[pb.Gpu], dict[int, Exception]]:
        """The devices that answer, and by index the errors of the others. ``NVMLError`` when NVML itself is gone."""
        gpus: list[pb.Gpu] = []
        errors: dict[int, Exception] = {}
        for index in range(count):
            try:
                gpus.append(read_gpu(self._nvml, index))
            except self._nvml.NVMLError as exc:
                if error_code(exc) in LIBRARY_GONE:
                    raise
                errors[index] = exc
        return gpus, errors

    def _log_changes(self, errors: dict[int, Exception]) -> None:
        """Logs once when a device falls silent and once when it answers again."""
        for index in sorted(errors.keys() - self._silent):
            _LOGGER.warning("GPU %d does not answer: %s", index, errors[index])
        for index in sorted(self._silent - errors.keys()):
            _LOGGER.info("GPU %d answers again, or is no longer counted", index)
        self._silent = frozenset(errors)


def read_gpu(nvml: Any, index: int) -> pb.Gpu:
    """Reads one GPU, index from 0. A field that the device does not support is absent.

    On a divided GPU (MIG) the utilisation is absent: NVML does not know it for the whole device. Raises
    ``nvml.NVMLError`` when the device or all of NVML is gone.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def attempt(read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except nvml.NVMLError as exc:
            if error_code(exc) in LIBRARY_GONE | DEVICE_GONE:
                raise
            return None
        except UnicodeDecodeError:  # pynvml decodes names strictly
            return None

    uuid = attempt(lambda: nvml.nvmlDeviceGetUUID(handle))
    name = attempt(lambda: nvml.nvmlDeviceGetName(handle))
    utilization = attempt(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    # Version 1 counts hundreds of megabytes of an idle GPU as used, which nvidia-smi does not show.
    memory = attempt(
        lambda: _with_fallback(
            nvml,
            lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
            lambda: nvml.nvmlDeviceGetMemoryInfo(handle),
        )
    )
    temperature = attempt(
        lambda: _with_fallback(
            nvml,
            lambda: nvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU),
            lambda: nvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        )
    )
    power_milliwatts = attempt(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return pb.Gpu(
        index=index,
        uuid=_text(uuid),
        name=_text(name),
        utilization_percent=None if utilization is None or utilization > 100 else utilization,
        memory_used_bytes=None if memory is None else memory.used,
        memory_size_bytes=None if memory is None else memory.total,
        temperature_celsius=temperature,
        power_watts=None if power_milliwatts is None else power_milliwatts / 1000.0,
    )


def _with_fallback(nvml: Any, read: Callable[[], _T], read_by_older_driver: Callable[[], _T]) -> _T:
    try:
        return read()
    except nvml.NVMLError as exc:
        if error_code(exc) not in OLDER_DRIVER:
            raise
        return read_by_older_driver()


def _text(text: str | bytes | None) -> str:
    """Older versions of pynvml return bytes. Empty when it could not be read."""
    if text is None:
        return ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


class NvmlSession:
    """Initialises NVML once, and again only for a reason: it costs tens of milliseconds and may wake a sleeping GPU.

    * After a first loss: at the next ``open``.
    * While ``nvmlInit`` fails: every ``retry_seconds``.
    * Without a driver, or while a new initialisation does not bring a lost device back: every ``rare_retry_seconds``.

    Used from one thread at a time.
    """

    def __init__(
        self,
        nvml: Any,
        clock: Callable[[], float] = time.monotonic,
        *,
        retry_seconds: float = 30.0,
        rare_retry_seconds: float = 300.0,
    ) -> None:
        self._nvml, self._clock = nvml, clock
        self._retry_seconds, self._rare_retry_seconds = retry_seconds, rare_retry_seconds
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
