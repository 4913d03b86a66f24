"""NVIDIA GPUs of this machine, through NVML; in a container those that were given to it."""

import logging
import threading
import time
from collections.abc import Callable

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.gpu_reading import read_gpu
from fleetpulse.worker.collectors.nvml import DEVICE_GONE, LIBRARY_GONE, Nvml, error_code
from fleetpulse.worker.collectors.nvml_session import GpuUnavailable, NvmlSession

_log = logging.getLogger(__name__)


class GpuCollector:
    """``gpus``, by index. A machine without an NVIDIA driver, or without devices, gives an empty report.

    Each device is isolated: one that does not answer is reported with the identity that it had and without readings, or
    not at all if it never answered. ``GpuUnavailable`` when not one answers, and when the driver itself is gone.
    """

    name = "gpu"

    def __init__(self, nvml: Nvml, clock: Callable[[], float] = time.monotonic) -> None:
        """``nvml`` is the module ``pynvml``, or a ``FakeNvml``. It is not called before the first round."""
        self._nvml = nvml
        self._session = NvmlSession(nvml, clock)
        self._device_count: int | None = None
        self._identities: dict[int, pb.Gpu] = {}
        self._silent: frozenset[int] = frozenset()
        self._in_use = threading.Lock()

    @property
    def device_count(self) -> int | None:
        """Devices as of the last round; 0 without a driver, None before the first round and while NVML fails.

        From any thread. NVML is not called, so that this cannot hang as a call to NVML can.
        """
        return self._device_count

    def collect(self) -> pb.Heartbeat:
        with self._in_use:
            return pb.Heartbeat(gpus=self._round())

    def shutdown(self) -> None:
        """Let NVML go; a later round would start it again. While a round hangs it is left alone, or this would hang."""
        if not self._in_use.acquire(blocking=False):
            _log.warning("NVML is not shut down: a reading of the GPUs has not returned")
            return
        try:
            self._session.close()
        finally:
            self._in_use.release()

    def _round(self) -> list[pb.Gpu]:
        try:
            if not self._session.open(driver_expected=bool(self._identities)):
                self._device_count = 0
                return []
            count = self._nvml.nvmlDeviceGetCount()
            gpus, errors = self._read_each(count)
        except GpuUnavailable:
            self._device_count = None
            raise
        except self._nvml.NVMLError as exc:
            self._device_count = None
            self._session.lost_library()
            raise GpuUnavailable(f"the NVIDIA driver was lost: {exc}") from exc
        self._device_count = count
        return self._conclude(gpus, errors)

    def _read_each(self, count: int) -> tuple[list[pb.Gpu], dict[int, Exception]]:
        """The devices that answer, and by index why the others do not. ``NVMLError`` when NVML itself is gone."""
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

    def _conclude(self, gpus: list[pb.Gpu], errors: dict[int, Exception]) -> list[pb.Gpu]:
        if any(error_code(error) in DEVICE_GONE for error in errors.values()):
            self._session.lost_device()
        else:
            self._session.settled()
        self._log_changes(errors)
        self._identities.update({gpu.index: pb.Gpu(index=gpu.index, uuid=gpu.uuid, name=gpu.name) for gpu in gpus})
        if errors and not gpus:
            first = next(iter(errors.values()))
            raise GpuUnavailable(f"no GPU answers: {first}") from first
        remembered = [self._identities[index] for index in errors if index in self._identities]
        return sorted([*gpus, *remembered], key=lambda gpu: gpu.index)

    def _log_changes(self, errors: dict[int, Exception]) -> None:
        """Once when a device falls silent and once when it answers again, not in every round."""
        for index in sorted(errors.keys() - self._silent):
            _log.warning("GPU %d does not answer: %s", index, errors[index])
        for index in sorted(self._silent - errors.keys()):
            _log.info("GPU %d answers again, or is no longer counted", index)
        self._silent = frozenset(errors)
