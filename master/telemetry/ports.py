"""What the TelemetryManager asks of others: the time, and the shape of those it tells."""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fleetpulse.master.telemetry.records import WorkerTelemetry

UpdateCallback = Callable[[str, WorkerTelemetry], None]


class TelemetryObserver(Protocol):
    """Someone who keeps a view of the live table. Called on the hub, must not switch, block or raise."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """The worker is new, was updated, or turned active or inactive."""

    def worker_removed(self, worker_id: str) -> None:
        """The worker is not in the table any more."""


class Clock(NamedTuple):
    """Where the time comes from. Liveness uses ``monotonic``; ``wall`` only stamps what people read."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
