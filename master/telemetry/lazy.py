"""Views of the live table that are rendered in batches: behind the heartbeats, ahead of every read, and only in demand.

Rendering one worker's text costs several times more when it is done alone than in a batch, because the code and the
data of everything else have just been through the processor's caches. So a change is only noted. When a read is near
(``demand``), a greenlet renders every few milliseconds what has gathered; whoever reads renders the rest first, so a
read is never behind the table. A view that nobody reads costs nothing.
"""

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict

import gevent
from gevent.event import Event

from fleetpulse.master.telemetry.demand import Demand
from fleetpulse.master.telemetry.ports import Clock
from fleetpulse.master.telemetry.records import WorkerTelemetry

_LOGGER = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
_LOOK_AGAIN_SECONDS = 1.0
"""While nobody is expected: somebody new may read more often."""

_RENDERED_IN_A_ROW = 16
"""Workers after which other greenlets have their turn."""

_PAUSE_SECONDS = 0.001
"""Such a turn, where nobody waits for the view: requests that come meanwhile find the hub at rest every other time."""


class LazyView(ABC):
    """A ``TelemetryObserver`` that renders. A subclass calls ``catch_up`` at the start of a read."""

    def __init__(self, clock: Clock = Clock()) -> None:  # noqa: B008 - an immutable pair of functions
        self._clock = clock
        self._behind: OrderedDict[str, WorkerTelemetry] = OrderedDict()
        self._demand = Demand()
        self._has_work = Event()
        self._renderer: gevent.Greenlet[..., None] | None = None

    @abstractmethod
    def render(self, telemetry: WorkerTelemetry) -> None:
        """Make the view of this worker anew. Must not switch."""

    @abstractmethod
    def remove(self, worker_id: str) -> None:
        """Drop the view of this worker, if there is one. Must not switch."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """Note the change; of several only the last counts."""
        if not self._behind:
            self._has_work.set()
        self._behind[telemetry.worker_id] = telemetry

    def worker_removed(self, worker_id: str) -> None:
        """Forget the worker at once."""
        self._behind.pop(worker_id, None)
        self.remove(worker_id)

    def catch_up(self) -> None:
        """Render all that changed. Lets other greenlets run now and then."""
        self._demand.note_read(self._clock.monotonic())
        self._has_work.set()
        self._render_behind(pause_seconds=0.0)

    def catch_up_with(self, worker_id: str) -> None:
        """Render what changed of one worker."""
        telemetry = self._behind.pop(worker_id, None)
        if telemetry is not None:
            self.render(telemetry)

    def start(self) -> None:
        """Render in the background from now on, when a read is near."""
        self._renderer = gevent.spawn(self._keep_up)
        self._renderer.name = f"renderer-{type(self).__name__}"

    def stop(self) -> None:
        """End the background rendering."""
        if self._renderer is not None:
            self._renderer.kill()

    def _keep_up(self) -> None:
        while True:
            self._has_work.wait()
            self._has_work.clear()
            gevent.sleep(BATCH_SECONDS)
            while (quiet_seconds := self._demand.quiet_seconds(self._clock.monotonic())) > 0.0:
                gevent.sleep(min(quiet_seconds, _LOOK_AGAIN_SECONDS))
            if self._demand.exists(self._clock.monotonic()):
                self._render_behind(_PAUSE_SECONDS)

    def _render_behind(self, pause_seconds: float) -> None:
        rendered = 0
        while self._behind:
            worker_id, telemetry = self._behind.popitem(last=False)
            try:
                self.render(telemetry)
            except Exception:
                _LOGGER.exception("worker %s: its telemetry could not be rendered", worker_id)
            rendered += 1
            if rendered % _RENDERED_IN_A_ROW == 0:
                gevent.sleep(pause_seconds)
