"""When NVML is initialised, initialised again, and left alone.

Initialising costs tens of milliseconds and may wake a sleeping GPU, so it is done once, and again only for a reason.
"""

import logging
import math
import time
from collections.abc import Callable

from fleetpulse.worker.collectors.base import CollectorError
from fleetpulse.worker.collectors.nvml import NO_DRIVER, Nvml, error_code

_log = logging.getLogger(__name__)


class GpuUnavailable(CollectorError):
    """There is, or was, an NVIDIA driver, and it cannot be used. ``__cause__`` is the ``NVMLError``."""


class NvmlSession:
    """One initialisation of NVML at a time. Used from one thread at a time.

    * A first loss is answered at the next ``open``.
    * While ``nvmlInit`` fails, it is tried every ``retry_seconds``.
    * Without a driver, or while a new initialisation does not bring a lost device back, every ``rare_retry_seconds``.
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
        self._initialized = False
        self._renewal_wanted = True
        self._earliest_init = -math.inf
        self._failure: Exception | None = None

    def open(self, *, driver_expected: bool) -> bool:
        """Whether NVML can be called; False on a machine without a driver.

        ``driver_expected``: it has been there, so that its absence is a failure too. Raises ``GpuUnavailable``.
        """
        if self._renewal_wanted and self._clock() >= self._earliest_init:
            self.close()
            self._initialize(driver_expected)
        if self._failure is not None:
            raise GpuUnavailable(f"NVML cannot be initialised: {self._failure}") from self._failure
        return self._initialized

    def settled(self) -> None:
        """Nothing is lost, or no longer: the next loss is a first one again."""
        self._renewal_wanted = False
        self._earliest_init = -math.inf

    def lost_device(self) -> None:
        """A device is gone; the others still answer."""
        self._renewal_wanted = True

    def lost_library(self) -> None:
        """No call can succeed any more."""
        self._renewal_wanted = True
        self._earliest_init = min(self._earliest_init, self._clock() + self._retry_seconds)

    def close(self) -> None:
        """Shut NVML down if it is initialised."""
        if not self._initialized:
            return
        self._initialized = False
        self._renewal_wanted = True
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as exc:  # expected after a driver reload: there is nothing left to shut down
            _log.debug("nvmlShutdown: %s", exc)

    def _initialize(self, driver_expected: bool) -> None:
        self._failure = None
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as exc:
            if error_code(exc) in NO_DRIVER and not driver_expected:
                self._wait(self._rare_retry_seconds)
            else:
                self._failure = exc
                self._wait(self._retry_seconds)
        else:
            self._initialized = True
            self._renewal_wanted = False
            self._wait(self._rare_retry_seconds)

    def _wait(self, seconds: float) -> None:
        self._earliest_init = self._clock() + seconds
