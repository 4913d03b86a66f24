"""Views of the live table that are rendered in batches: behind the heartbeats, ahead of every read, and only in demand.

Rendering one worker's text costs several times more alone than in a batch, because the code and the data of everything
else have just been through the processor's caches. So a change is only noted. When a read is near, a greenlet renders
every few milliseconds what has gathered. A reader renders the rest first, so a read is never behind the table. A view
that nobody reads costs nothing, or no more than to render each worker once (``renders_ahead``).
"""

import logging
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict, deque
from itertools import accumulate
from operator import sub
from typing import Any

import gevent
from gevent.event import Event

from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.telemetry.records import Clock, WorkerTelemetry

_LOGGER = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
DEMAND_SECONDS = 90.0
"""How long a read keeps a view in demand: longer than the interval of a scraper or of a person who watches."""

LEAD_SECONDS = 1.0
"""Before an expected read: time to render a whole fleet, and to allow for an early reader."""

_INTERVALS = 3
"""The shortest of the last ones is expected again, so up to that many readers may share a view."""

_LOOK_AGAIN_SECONDS = 1.0
"""While no read is expected: a new reader may read more often."""

_RENDERED_IN_A_ROW = 16
"""Workers after which other greenlets have their turn."""

_LOOKED_AT_IN_A_ROW = 256

_PAUSE_SECONDS = 0.001
"""The length of such a turn in the background, so that requests find the hub idle every other time."""


class SteadyBytes(bytes):
    """A part of answers that seldom changes. ``derived`` keeps what was made of it, for as long as it is used."""

    derived: Any = None


class ReadRhythm:
    """Predicts from the reads of a view when the next one comes. Times are of a monotonic clock, in seconds.

    Scrapers and dashboards read in a rhythm. Between two reads of one that comes every 15 s each worker beats three
    times, and only the last counts, so there is time until shortly before the next read.
    """

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    def note_read(self, now: float) -> None:
        """The view is read."""
        if self.in_demand(now) and self._read_at is not None:
            self._intervals.append(now - self._read_at)
        else:
            self._intervals.clear()
        self._read_at = now

    def in_demand(self, now: float) -> bool:
        """Whether the view is still read now and then."""
        return self._read_at is not None and now - self._read_at < DEMAND_SECONDS

    def quiet_seconds(self, now: float) -> float:
        """For how long no read is expected; 0 when the next one is near, or when there is no rhythm to go by."""
        if self._read_at is None or not self._intervals or not self.in_demand(now):
            return 0.0
        return max(self._read_at + min(self._intervals) - LEAD_SECONDS - now, 0.0)


class LazyView(ABC):
    """A ``TelemetryObserver`` that renders. A subclass calls ``catch_up`` at the start of a read."""

    renders_ahead = False
    """Whether new workers are rendered in the background, once, though nobody reads: for a view where the first time
    costs several times more than the next ones, so that the first reader need not wait for all of a fleet."""

    def __init__(self, clock: Clock = Clock()) -> None:  # noqa: B008 - an immutable pair of functions
        self._clock = clock
        self._behind: OrderedDict[str, WorkerTelemetry] = OrderedDict()
        self._rhythm = ReadRhythm()
        self._has_work = Event()
        self._renderer: gevent.Greenlet[..., None] | None = None

    @abstractmethod
    def render(self, telemetry: WorkerTelemetry) -> None:
        """Make the view of this worker anew. Must not switch."""

    @abstractmethod
    def remove(self, worker_id: str) -> None:
        """Drop the view of this worker, if there is one. Must not switch."""

    def has_rendered(self, worker_id: str) -> bool:
        """Whether there is a view of this worker. Asked of a view that renders ahead."""
        raise NotImplementedError

    def settle(self) -> None:
        """No worker has come for a while, so what all of them have in common may be made. Asked of a view that renders
        ahead; lets other greenlets run now and then."""
        raise NotImplementedError

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
        self._rhythm.note_read(self._clock.monotonic())
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
            while (quiet_seconds := self._rhythm.quiet_seconds(self._clock.monotonic())) > 0.0:
                gevent.sleep(min(quiet_seconds, _LOOK_AGAIN_SECONDS))
            if self._rhythm.in_demand(self._clock.monotonic()):
                self._render_behind(_PAUSE_SECONDS)
            elif self.renders_ahead:
                self._render_new()

    def _render_new(self) -> None:
        """Render workers for the first time, until somebody reads. All that has changed stays behind, so its number
        tells whether there may be new ones."""
        known, is_settled = -1, True
        while not self._rhythm.in_demand(self._clock.monotonic()):
            if known != len(self._behind):
                known, is_settled = self._render_first_times(), False
            elif not is_settled:
                self.settle()
                is_settled = True
            gevent.sleep(_LOOK_AGAIN_SECONDS)
        self._has_work.set()

    def _render_first_times(self) -> int:
        """Returns how many workers are behind, or -1 when some of them have had no heartbeat yet."""
        waiting = False
        for number, worker_id in enumerate(list(self._behind), start=1):
            if number % _LOOKED_AT_IN_A_ROW == 0:
                gevent.sleep(_PAUSE_SECONDS)
            telemetry = self._behind.get(worker_id)
            if telemetry is not None and not self.has_rendered(worker_id):
                if telemetry.counts.received:
                    self._render_one(telemetry)
                    gevent.sleep(_PAUSE_SECONDS)
                else:
                    waiting = True
        return -1 if waiting else len(self._behind)

    def _render_one(self, telemetry: WorkerTelemetry) -> None:
        try:
            self.render(telemetry)
        except Exception:
            _LOGGER.exception("worker %s: its telemetry could not be rendered", telemetry.worker_id)

    def _render_behind(self, pause_seconds: float) -> None:
        rendered = 0
        while self._behind:
            _, telemetry = self._behind.popitem(last=False)
            self._render_one(telemetry)
            rendered += 1
            if rendered % _RENDERED_IN_A_ROW == 0:
                gevent.sleep(pause_seconds) if pause_seconds else give_way()


class SteadyLines:
    """The lines are kept joined, and once only: the text, and where each of them starts in it."""

    __slots__ = ("_changed", "_starts", "_text")

    def __init__(self) -> None:
        self._text = SteadyBytes()
        self._starts = array("Q", (0,))
        """Of each line, and where the last one ends."""

        self._changed: dict[int, bytes] = {}
        """Lines by place that are not in the text yet."""

    def put(self, place: int, line: bytes) -> None:
        """Set the line at a place."""
        if self._line(place) != line:
            self._changed[place] = line

    def join(self) -> bytes:
        """The text of all lines."""
        if self._changed:
            text, starts = self._text, self._starts
            starts.extend(starts[-1:] * (max(self._changed) + 2 - len(starts)))
            lengths = [*map(sub, starts[1:], starts)]
            pieces: list[bytes] = []
            done = 0
            for place, line in sorted(self._changed.items()):
                pieces += text[done : starts[place]], line
                done = starts[place + 1]
                lengths[place] = len(line)
            self._text = SteadyBytes(b"".join((*pieces, text[done:])))
            self._starts = array("Q", accumulate(lengths, initial=0))
            self._changed.clear()
        return self._text

    def _line(self, place: int) -> bytes:
        changed = self._changed.get(place)
        if changed is not None:
            return changed
        return self._text[self._starts[place] : self._starts[place + 1]] if place + 1 < len(self._starts) else b""
