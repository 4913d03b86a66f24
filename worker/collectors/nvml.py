"""NVIDIA's management library: when it is initialised, and how one GPU is read.

The library is the module ``pynvml`` of nvidia-ml-py 13, or a fake with the same functions. Each function that a device
does not support is left out by itself.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import logging
import math
import time
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import pynvml

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import MAX_GPU_PROCESSES
from fleetpulse.worker.collectors import CollectorError

_LOGGER = logging.getLogger(__name__)

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

_UNSUPPORTED = OLDER_DRIVER | {pynvml.NVML_ERROR_NOT_SUPPORTED}

SLOW_READING_SECONDS = 60.0
"""How often what seldom changes is read: limits and counters of errors. Unsupported readings are tried as often."""

MAX_CELSIUS = 200.0
MAX_WATTS = 10_000.0
MAX_MEGAHERTZ = 100_000
_ALL_ONES = (2**32 - 1, 2**64 - 1)
"""NVML's ``NVML_VALUE_NOT_AVAILABLE``; many fields have it where the documentation promises an error."""

THROTTLE_REASONS: Final = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware_slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware_thermal",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power_brake",
}
"""Why a GPU runs slower than it could, by NVML's bit. Idle, and what a user set, is no throttling."""

_HARMLESS_REASONS = frozenset({"power_cap"})
"""Every loaded GPU meets its power limit."""

_NVLINK_ERROR_FIELDS = (
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
)


_Call = tuple[Any, ...]
"""The name of a function, and its arguments after the handle."""


class GpuUnavailable(CollectorError):
    """An NVIDIA driver is or was there and cannot be used. ``__cause__`` is the ``NVMLError``."""


def error_code(error: BaseException) -> int:
    """The code of an ``NVMLError``."""
    return int(getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN))


class NvmlGpu:
    """One GPU, for as long as NVML stays initialised. Every method raises ``nvml.NVMLError`` when the device or all
    of NVML is gone. Used from one thread at a time.
    """

    def __init__(self, nvml: Any, index: int) -> None:
        """``index`` counts from 0. The identity is read once: it costs as much as a reading."""
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._unsupported: dict[_Call, int] = {}
        self._identity = pb.Gpu(index=index, vendor="nvidia")
        self._slow = pb.Gpu()
        self._slow_due_at = -math.inf
        self._is_divided = False
        self._instances: list[tuple[Any, pb.GpuInstance]] = []
        """Of a divided GPU, the handle and the identity of each part."""
        self._identify()

    @property
    def identity(self) -> pb.Gpu:
        """Index, UUID and name; the last two are empty where they cannot be read."""
        return self._identity

    @property
    def handle(self) -> Any:
        """NVML's own."""
        return self._handle

    @property
    def uuids(self) -> tuple[str, ...]:
        """What tasks can be given: the GPU, or the parts of a divided one."""
        if self._is_divided:
            return tuple(part.uuid for _, part in self._instances if part.uuid)
        return (self._identity.uuid,) if self._identity.uuid else ()

    def read(self, now: float) -> pb.Gpu:
        """All readings; ``now`` is in seconds of any clock. A field that the device does not support is absent.

        On a divided GPU (MIG) the utilisation is absent: NVML does not know it for the whole device.
        """
        if now >= self._slow_due_at:
            self._unsupported.clear()
            self._slow_due_at = now + SLOW_READING_SECONDS
            self._slow = self._read_slow()
            self._find_instances()
        if not self._identity.uuid:
            self._identify()
        gpu = self._read_fast()
        gpu.MergeFrom(self._identity)
        gpu.MergeFrom(self._slow)
        gpu.state = "ok"
        self._add_processes(gpu)
        gpu.instances.extend(self._read_instance(handle, part) for handle, part in self._instances)
        return gpu

    def _identify(self) -> None:
        self._identity.uuid = _text(self._attempt("nvmlDeviceGetUUID"))
        self._identity.name = _text(self._attempt("nvmlDeviceGetName"))

    def _read_fast(self) -> pb.Gpu:
        utilization = self._attempt("nvmlDeviceGetUtilizationRates")
        # Version 1 counts hundreds of megabytes of an idle GPU as used, which nvidia-smi does not show.
        memory = self._attempt_either(("nvmlDeviceGetMemoryInfo", pynvml.nvmlMemory_v2), ("nvmlDeviceGetMemoryInfo",))
        temperature = self._attempt_either(
            ("nvmlDeviceGetTemperatureV", pynvml.NVML_TEMPERATURE_GPU),
            ("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        )
        power_milliwatts = self._attempt("nvmlDeviceGetPowerUsage")
        encoder, decoder = (self._attempt(f"nvmlDeviceGet{unit}Utilization") for unit in ("Encoder", "Decoder"))
        size = None if memory is None or not memory.total or memory.total in _ALL_ONES else memory.total
        gpu = pb.Gpu(
            utilization_percent=_within(100, None if utilization is None else utilization.gpu),
            memory_used_bytes=None if size is None or memory.used > size else memory.used,
            memory_size_bytes=size,
            temperature_celsius=_within(MAX_CELSIUS, temperature),
            power_watts=_within(MAX_WATTS, _thousandth(power_milliwatts)),
            clock_hertz=self._clock_hertz(pynvml.NVML_CLOCK_SM),
            memory_clock_hertz=self._clock_hertz(pynvml.NVML_CLOCK_MEM),
            encoder_utilization_percent=_within(100, None if encoder is None else encoder[0]),
            decoder_utilization_percent=_within(100, None if decoder is None else decoder[0]),
        )
        bits = self._attempt_either(
            ("nvmlDeviceGetCurrentClocksEventReasons",), ("nvmlDeviceGetCurrentClocksThrottleReasons",)
        )
        if bits is not None and bits not in _ALL_ONES:
            gpu.throttle_reasons.extend(reason for bit, reason in THROTTLE_REASONS.items() if bits & bit)
            gpu.is_throttled = not _HARMLESS_REASONS.issuperset(gpu.throttle_reasons)
        return gpu

    def _read_slow(self) -> pb.Gpu:
        """What seldom changes."""
        limit_milliwatts = self._attempt("nvmlDeviceGetEnforcedPowerLimit")
        corrected, uncorrected = (
            self._attempt("nvmlDeviceGetTotalEccErrors", kind, pynvml.NVML_AGGREGATE_ECC)
            for kind in (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
        )
        return pb.Gpu(
            power_limit_watts=_within(MAX_WATTS, _thousandth(limit_milliwatts)) or None,
            ecc_corrected_errors=None if corrected in _ALL_ONES else corrected,
            ecc_uncorrected_errors=None if uncorrected in _ALL_ONES else uncorrected,
            nvlink_errors=self._nvlink_errors(),
        )

    def _nvlink_errors(self) -> int | None:
        fields = self._attempt("nvmlDeviceGetFieldValues", _NVLINK_ERROR_FIELDS)
        counts = [
            int(field.value.ullVal)
            for field in fields or ()
            if field.nvmlReturn == pynvml.NVML_SUCCESS and field.value.ullVal not in _ALL_ONES
        ]
        return sum(counts) if counts else None

    def _clock_hertz(self, clock: int) -> float | None:
        megahertz = _within(MAX_MEGAHERTZ, self._attempt("nvmlDeviceGetClockInfo", clock))
        return None if megahertz is None else megahertz * 1e6

    def _add_processes(self, gpu: pb.Gpu) -> None:
        """Those that compute and those that draw; of one that does both, or in two parts, the larger memory."""
        lists = [
            self._attempt_either(
                (f"nvmlDeviceGet{kind}RunningProcesses_v3",), (f"nvmlDeviceGet{kind}RunningProcesses_v2",)
            )
            for kind in ("Compute", "Graphics")
        ]
        if lists == [None, None]:
            return
        found: dict[int, int | None] = {}
        for process in chain.from_iterable(part or () for part in lists):
            used = None if process.usedGpuMemory in _ALL_ONES else process.usedGpuMemory
            found[process.pid] = max((found.get(process.pid), used), key=lambda known: -1 if known is None else known)
        gpu.process_count = len(found)
        largest = sorted(found.items(), key=lambda item: (-(item[1] or 0), item[0]))[:MAX_GPU_PROCESSES]
        gpu.processes.extend(pb.GpuProcess(pid=pid, memory_used_bytes=used) for pid, used in largest)

    def _find_instances(self) -> None:
        mode = self._attempt("nvmlDeviceGetMigMode")
        self._is_divided = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        self._instances = []
        for number in range(self._attempt("nvmlDeviceGetMaxMigDeviceCount") or 0) if self._is_divided else ():
            handle = self._attempt("nvmlDeviceGetMigDeviceHandleByIndex", number)
            if handle is not None:
                uuid, name = (_text(self._call(handle, f"nvmlDeviceGet{what}")) for what in ("UUID", "Name"))
                self._instances.append((handle, pb.GpuInstance(uuid=uuid, name=name, gpu=self._identity.index)))

    def _read_instance(self, handle: Any, identity: pb.GpuInstance) -> pb.GpuInstance:
        memory = self._call(handle, "nvmlDeviceGetMemoryInfo")
        instance = pb.GpuInstance(
            memory_used_bytes=None if memory is None or memory.used > memory.total else memory.used,
            memory_size_bytes=None if memory is None else memory.total or None,
        )
        instance.MergeFrom(identity)
        return instance

    def _attempt_either(self, call: _Call, by_older_driver: _Call) -> Any:
        value = self._attempt(*call)
        return self._attempt(*by_older_driver) if self._unsupported.get(call) in OLDER_DRIVER else value

    def _attempt(self, *call: Any) -> Any:
        """What the function of this name and these arguments returns; ``None`` where it has nothing to say."""
        return None if call in self._unsupported else self._call(self._handle, *call)

    def _call(self, handle: Any, *call: Any) -> Any:
        function, *arguments = call
        try:
            return getattr(self._nvml, function)(handle, *arguments)
        except self._nvml.NVMLError as exc:
            if (code := error_code(exc)) in LIBRARY_GONE | DEVICE_GONE:
                raise
            if code in _UNSUPPORTED and handle is self._handle:
                self._unsupported[call] = code
        except UnicodeDecodeError:  # pynvml decodes names strictly
            pass
        return None


def _within(most: float, value: float | None) -> float | None:
    """The value if it can be true."""
    return value if value is not None and 0 <= value <= most else None


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000.0


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
        before_shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        """``before_shutdown`` gives back what else was taken of NVML."""
        self._before_shutdown = before_shutdown
        self._nvml, self._clock = nvml, clock
        self._retry_seconds, self._rare_retry_seconds = retry_seconds, rare_retry_seconds
        self._is_initialized = False
        self._needs_init = True
        self._earliest_init = -math.inf
        self._failure: Exception | None = None
        self.initializations = 0
        """How often NVML was initialised. Handles and indices are those of one initialisation."""

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
        self._before_shutdown()
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
            self.initializations += 1
        except self._nvml.NVMLError as exc:
            if driver_expected or error_code(exc) not in NO_DRIVER:
                self._failure, wait_seconds = exc, self._retry_seconds
        self._earliest_init = self._clock() + wait_seconds
