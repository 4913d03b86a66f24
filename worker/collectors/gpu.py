"""The GPUs of this machine; in a container those that were given to it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import pynvml

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.drm import DrmGpus
from fleetpulse.worker.collectors.nvml import (
    DEVICE_GONE,
    LIBRARY_GONE,
    GpuUnavailable,
    NvmlGpu,
    NvmlSession,
    error_code,
)
from fleetpulse.worker.collectors.processes import ProcessNames
from fleetpulse.worker.collectors.xid import XidEvents

_LOGGER = logging.getLogger(__name__)


class GpuInventory(NamedTuple):
    """The GPUs that answer, and can be given to tasks."""

    number: int = 0
    uuids: tuple[str, ...] = ()
    """In the order of their index, without those that have none; of a divided GPU, those of its parts."""


class GpuCollector:
    """``gpus``, by index. A machine without an NVIDIA driver, or without devices, gives an empty report.

    A GPU that once answered is reported for as long as the worker runs: with its readings and the state ``ok``, or
    without readings, as ``lost`` when it is off the bus or no longer counted, and as ``error`` otherwise. One that
    never answered has its index only. Raises ``GpuUnavailable``, with the known GPUs in ``fields``, while the driver
    itself fails.
    """

    name = "gpu"

    def __init__(
        self,
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
        process_names: ProcessNames | None = None,
        others: DrmGpus | None = None,
    ) -> None:
        """``nvml`` is not called before the first ``collect``. Without ``process_names``, no process is named.

        ``others`` reads the GPUs of other vendors. They come after NVIDIA's, and cannot be given to tasks.
        """
        self._others = others
        self._process_names = process_names
        self._nvml, self._clock = nvml, clock
        self._session = NvmlSession(nvml, clock, before_shutdown=self._close_events)
        self._initialization = 0
        self._devices: dict[int, NvmlGpu] = {}
        """By index, of this initialisation of NVML only: the driver may come back with others."""
        self._known: dict[str, pb.Gpu] = {}
        """By UUID, index and name of every GPU that has answered."""
        self._inventory: GpuInventory | None = None
        self._events: XidEvents | None = None
        self._last_xids: dict[str, int] = {}
        """By UUID."""
        self._silent: dict[str, str] = {}
        self._is_released = False
        self._in_use = threading.Lock()

    @property
    def inventory(self) -> GpuInventory | None:
        """As the last ``collect`` found it; ``None`` before the first one and while NVML fails.

        For any thread. Does not call NVML, so it cannot hang.
        """
        return self._inventory

    def collect(self) -> pb.Heartbeat:
        with self._in_use:
            try:
                return self._with_others(self._read_gpus())
            except GpuUnavailable as exc:
                self._inventory = None
                exc.fields = self._with_others(_in_state(self._known.values(), "error", str(exc)))
                raise

    def release(self, *, is_released: bool) -> None:
        """Lets go of NVML before the next reading, so that a GPU can be reset, or takes it again.

        For any thread; does not wait. While released, GPUs are reported without a state.
        """
        self._is_released = is_released

    def shutdown(self) -> None:
        """Shuts NVML down; a later ``collect`` starts it again. Does nothing while ``collect`` hangs in NVML."""
        if not self._in_use.acquire(blocking=False):
            _LOGGER.warning("NVML is not shut down: a reading of the GPUs has not returned")
            return
        try:
            self._session.close()
        finally:
            self._in_use.release()

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _with_others(self, gpus: list[pb.Gpu]) -> pb.Heartbeat:
        first = max((gpu.index + 1 for gpu in gpus), default=0)
        return pb.Heartbeat(gpus=[*gpus, *([] if self._others is None else self._others.read(first))])

    def _read_gpus(self) -> list[pb.Gpu]:
        if self._is_released:
            self._session.close()
            return _in_state(self._known.values(), "", "NVML is released while the worker is drained")
        if not self._session.open(driver_expected=bool(self._known)):
            self._inventory = GpuInventory()
            return []
        if self._initialization != self._session.initializations:
            self._initialization = self._session.initializations
            self._devices.clear()
            self._events = XidEvents(self._nvml)
        try:
            answers, errors = self._read_each(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as exc:
            self._session.mark_library_lost()
            raise GpuUnavailable(f"the NVIDIA driver was lost: {exc}") from exc
        silent = self._describe_silent(answers, errors)
        if any(error_code(error) in DEVICE_GONE for error in errors.values()) or len(silent) > len(errors):
            self._session.mark_device_lost()
        else:
            self._session.mark_healthy()
        self._log_changes(silent)
        if self._process_names is not None:
            for process in chain.from_iterable(gpu.processes for gpu in answers):
                self._process_names.fill_in(process)
        devices = [self._devices[gpu.index] for gpu in answers]
        self._inventory = GpuInventory(len(answers), tuple(chain.from_iterable(device.uuids for device in devices)))
        self._add_xids([*answers, *silent])
        return sorted([*answers, *silent], key=lambda gpu: (gpu.index, gpu.uuid))

    def _add_xids(self, gpus: Iterable[pb.Gpu]) -> None:
        for uuid, number in () if self._events is None else self._events.take():
            _LOGGER.warning("GPU %s: the driver reports Xid %d", uuid, number)
            self._last_xids[uuid] = number
        for gpu in gpus:
            if gpu.uuid in self._last_xids:
                gpu.last_xid = self._last_xids[gpu.uuid]

    def _read_each(self, count: int) -> tuple[list[pb.Gpu], dict[int, Exception]]:
        """The devices that answer, and by index the errors of the others. ``NVMLError`` when NVML itself is gone."""
        gpus: list[pb.Gpu] = []
        errors: dict[int, Exception] = {}
        for index in range(count):
            try:
                if index not in self._devices:
                    device = self._devices[index] = NvmlGpu(self._nvml, index)
                    if self._events is not None:
                        self._events.listen_to(device.handle, device.identity.uuid)
                device = self._devices[index]
                gpus.append(device.read(self._clock()))
            except self._nvml.NVMLError as exc:
                if error_code(exc) in LIBRARY_GONE:
                    raise
                errors[index] = exc
            else:
                if device.identity.uuid:
                    self._known[device.identity.uuid] = device.identity
        return gpus, errors

    def _describe_silent(self, answers: Iterable[pb.Gpu], errors: dict[int, Exception]) -> list[pb.Gpu]:
        """Those that do not answer, and the known ones that the driver does not count any more."""
        answering = {gpu.uuid for gpu in answers}
        missing = {uuid: gpu for uuid, gpu in self._known.items() if uuid not in answering}
        silent: list[pb.Gpu] = []
        for index, error in errors.items():
            device = self._devices.get(index)
            # Of a new initialisation, the index says which one it is unless that one answers elsewhere.
            at_index = (gpu for gpu in missing.values() if gpu.index == index)
            identity = next(at_index, pb.Gpu(index=index, vendor="nvidia")) if device is None else device.identity
            missing.pop(identity.uuid, None)
            state = "lost" if error_code(error) == pynvml.NVML_ERROR_GPU_IS_LOST else "error"
            silent += _in_state([identity], state, str(error))
        return silent + _in_state(missing.values(), "lost", "the driver no longer counts it")

    def _log_changes(self, silent: Iterable[pb.Gpu]) -> None:
        """Logs once when a device falls silent and once when it answers again."""
        reasons = {gpu.uuid or str(gpu.index): f"GPU {gpu.index} does not answer: {gpu.state_reason}" for gpu in silent}
        for name in sorted(reasons.keys() - self._silent.keys()):
            _LOGGER.warning("%s", reasons[name])
        for name in sorted(self._silent.keys() - reasons.keys()):
            _LOGGER.info("GPU %s answers again", name)
        self._silent = reasons


def _in_state(gpus: Iterable[pb.Gpu], state: str, reason: str) -> list[pb.Gpu]:
    """The GPUs by their identity, without readings."""
    return [
        pb.Gpu(index=gpu.index, uuid=gpu.uuid, name=gpu.name, vendor=gpu.vendor, state=state, state_reason=reason)
        for gpu in gpus
    ]
