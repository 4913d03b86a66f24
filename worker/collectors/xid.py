"""Errors that NVIDIA's driver reports about a GPU (Xid): https://docs.nvidia.com/deploy/xid-errors/"""

import ctypes
import logging
from collections.abc import Iterable
from typing import Any

import pynvml

_LOGGER = logging.getLogger(__name__)

_MAX_EVENTS = 64
"""Taken in one round; a broken GPU reports without end."""


class XidEvents:
    """Listens from its making to ``close``, for one initialisation of NVML. Never waits; raises nothing.

    Where the driver or the device has no events, nothing is told.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handles: list[tuple[Any, str]] = []
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as exc:
            _LOGGER.debug("no events of GPUs: %s", exc)
            self._events = None

    def listen_to(self, handle: Any, uuid: str) -> None:
        """Adds a GPU."""
        if self._events is None:
            return
        try:
            self._nvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except self._nvml.NVMLError as exc:
            _LOGGER.debug("no events of GPU %s: %s", uuid, exc)
        else:
            self._handles.append((handle, uuid))

    def take(self) -> Iterable[tuple[str, int]]:
        """The UUIDs and the numbers of the errors since the last call, in their order."""
        for _ in range(_MAX_EVENTS if self._handles else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:  # mostly that there is none
                return
            device = _address(event.device)
            for handle, uuid in self._handles:
                if event.eventType == pynvml.nvmlEventTypeXidCriticalError and _address(handle) == device:
                    yield uuid, int(event.eventData)

    def close(self) -> None:
        """Ends it. Does nothing when NVML is gone."""
        if self._events is None:
            return
        try:
            self._nvml.nvmlEventSetFree(self._events)
        except self._nvml.NVMLError as exc:
            _LOGGER.debug("nvmlEventSetFree: %s", exc)
        self._events = None


def _address(handle: Any) -> Any:
    """NVML gives a new pointer to the same device with each event."""
    return ctypes.cast(handle, ctypes.c_void_p).value if isinstance(handle, pynvml.c_nvmlDevice_t) else handle
