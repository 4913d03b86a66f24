"""NVIDIA GPUs of this machine, through NVML; in a container those that were given to it."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.nvml import (
    DEVICE_GONE,
    LIBRARY_GONE,
    MEMORY_V2,
    OLDER_DRIVER,
    TEMPERATURE_GPU,
    GpuUnavailable,
    Nvml,
    NvmlSession,
    error_code,
)

_LOGGER = logging.getLogger(__name__)

_T = TypeVar("_T")


class GpuCollector:
    """``gpus``, by index. A machine without an NVIDIA driver, or without devices, gives an empty report.

    A device that does not answer is reported with its last known identity and without readings, or not at all if it
    never answered. ``GpuUnavailable`` when none answers, and when the driver itself is gone.
    """

    name = "gpu"

    def __init__(self, nvml: Nvml, clock: Callable[[], float] = time.monotonic) -> None:
        """``nvml`` is the module ``pynvml``, or a fake. It is not called before the first ``collect``."""
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


def read_gpu(nvml: Nvml, index: int) -> pb.Gpu:
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
            lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=MEMORY_V2),
            lambda: nvml.nvmlDeviceGetMemoryInfo(handle),
        )
    )
    temperature = attempt(
        lambda: _with_fallback(
            nvml,
            lambda: nvml.nvmlDeviceGetTemperatureV(handle, TEMPERATURE_GPU),
            lambda: nvml.nvmlDeviceGetTemperature(handle, TEMPERATURE_GPU),
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


def _with_fallback(nvml: Nvml, read: Callable[[], _T], read_by_older_driver: Callable[[], _T]) -> _T:
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
