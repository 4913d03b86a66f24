"""Views of the live table that are rendered in batches, behind the heartbeats and ahead of every read.

Rendering one worker's text costs several times more when it is done alone than in a batch, because the code and the
data of everything else have just been through the processor's caches. So a change is only noted, a greenlet renders
what has gathered every few milliseconds, and whoever reads renders the rest first: a read is never behind the table.
"""

import logging
from abc import ABC, abstractmethod

import gevent
from gevent.event import Event

from master.telemetry.records import WorkerTelemetry

_LOGGER = logging.getLogger(__name__)

BATCH_SECONDS = 0.05


class LazyView(ABC):
    """A ``TelemetryObserver`` that renders. A subclass calls ``catch_up`` at the start of every read."""

    def __init__(self) -> None:
        self._behind: dict[str, WorkerTelemetry] = {}
        self._is_behind = Event()
        self._renderer: gevent.Greenlet | None = None

    @abstractmethod
    def render(self, telemetry: WorkerTelemetry) -> None:
        """Make the view of this worker anew. Must not switch."""

    @abstractmethod
    def remove(self, worker_id: str) -> None:
        """Drop the view of this worker, if there is one. Must not switch."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """Note the change; of several only the last counts."""
        if not self._behind:
            self._is_behind.set()
        self._behind[telemetry.worker_id] = telemetry

    def worker_removed(self, worker_id: str) -> None:
        """Forget the worker at once."""
        self._behind.pop(worker_id, None)
        self.remove(worker_id)

    def catch_up(self) -> None:
        """Render what changed. Does not switch, so that a view never shows half a batch."""
        behind, self._behind = self._behind, {}
        self._is_behind.clear()
        for worker_id, telemetry in behind.items():
            try:
                self.render(telemetry)
            except Exception:
                _LOGGER.exception("worker %s: its telemetry could not be rendered", worker_id)

    def start(self) -> None:
        """Render in the background from now on."""
        self._renderer = gevent.spawn(self._keep_up)
        self._renderer.name = f"renderer-{type(self).__name__}"

    def stop(self) -> None:
        """End the background rendering."""
        if self._renderer is not None:
            self._renderer.kill()

    def _keep_up(self) -> None:
        while True:
            self._is_behind.wait()
            gevent.sleep(BATCH_SECONDS)
            self.catch_up()
