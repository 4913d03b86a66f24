"""The update callback that keeps history, and the greenlet that hands it over to the store every few seconds."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import gevent
from gevent.event import Event

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.history.counters import Counters
from fleetpulse.master.history.fields import Sample, sample_of
from fleetpulse.master.history.outbox import Outbox
from fleetpulse.master.history.points import Points, decode_chunk
from fleetpulse.master.history.ports import NO_REMAINS, HistoryBatch, HistoryStore, Tier, Written
from fleetpulse.master.history.track import SeriesWriter
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.records import WorkerTelemetry

_Value = TypeVar("_Value")

_LOGGER = logging.getLogger(__name__)

WORKERS_IN_A_ROW = 128
"""Workers after which other greenlets have their turn."""

MAX_HELD_SAMPLES = 50_000
"""Taken in while the journal of the last master is read."""

FINISHED_IN_A_ROUND = 200
"""Chunks of workers that have left, at most, though a whole fleet leaves at once: the outbox is bounded."""

_SILENT_ROUNDS = 2
"""After so many a worker that is not in the live table has left, and is not about to register with a new master."""

_JOURNAL_MARGIN_SECONDS = 60.0
_STOP_SECONDS = 3.0


class _Entry:
    """What is known of one worker."""

    __slots__ = ("counters", "silent_rounds", "track")

    def __init__(self, counters: Counters, track: SeriesWriter) -> None:
        self.counters, self.track = counters, track
        self.silent_rounds = 0


class _Held(NamedTuple):
    worker_id: str
    time: float
    sample: Sample
    seconds: float


class Recorder:
    """Made, called and stopped on the hub. ``record`` neither waits nor switches.

    Without ``tiers`` it has nothing to do. ``longest_seconds`` is how far apart two updates may be for a rate between
    them to be told; ``is_in_table`` says whether a worker is in the live table.
    """

    def __init__(
        self,
        store: HistoryStore,
        tiers: Sequence[Tier],
        instruments: Instruments,
        longest_seconds: float,
        is_in_table: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        flush_seconds: float = 15.0,
    ) -> None:
        self._store, self._tiers, self._counts = store, tuple(tiers), instruments.history
        self._longest_seconds, self._clock, self._flush_seconds = longest_seconds, clock, flush_seconds
        self._is_in_table = is_in_table
        self._outbox = Outbox()
        self._entries: dict[str, _Entry] = {}
        self._held: deque[_Held] | None = deque()
        self._stopping, self._idle = Event(), Event()
        self._idle.set()
        self._failing = False
        self._dropped_before = 0
        self._oldest = [0.0] * len(self._tiers)
        """For each tier, before which the journal is not needed any more, as far as open chunks and buckets go."""

        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Read what the last master has left, and then write every few seconds."""
        if self._tiers:
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.name = "history-recorder"

    def stop(self) -> None:
        """Write all that there is, when nothing more comes. Waits for some seconds at most."""
        if self._greenlet is None:
            return
        self._stopping.set()
        self._greenlet.join(_STOP_SECONDS)
        self._greenlet.kill()
        self._failing = False
        if self._held is None:
            for entry in self._entries.values():
                entry.track.close_bucket()
            with gevent.Timeout(_STOP_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
                while not self._outbox.is_empty and not self._failing:
                    self._flush()
                    self._idle.wait()
                self._idle.wait()

    def health_error(self) -> str | None:
        """Why nothing is recorded, or ``None``. A store that is away has a check of its own."""
        is_running = self._greenlet is not None and not self._greenlet.dead
        return None if is_running or not self._tiers else "nobody writes the history"

    def record(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        """Take one update in. The update callback of the ``TelemetryManager``."""
        entry = self._entry(worker_id)
        entry.silent_rounds = 0
        increases = entry.counters.advance(telemetry)
        sample = sample_of(telemetry, increases)
        seconds = 0.0 if increases is None else increases.seconds
        self._counts.samples.inc()
        if self._held is None:
            entry.track.bucket_at(telemetry.last_update).add(sample, seconds)
        elif len(self._held) < MAX_HELD_SAMPLES:
            self._held.append(_Held(worker_id, telemetry.last_update, sample, seconds))

    def recent(self, worker_id: str, step: int) -> list[Points]:
        """What may not be stored in chunks yet. Ask before the store is read, so that nothing is missing in between."""
        found = [decode_chunk(chunk.data) for chunk in self._outbox.chunks_of(worker_id, step)]
        entry = self._entries.get(worker_id)
        points = entry.track.open_points(step) if entry is not None else None
        return found if points is None or not points.times else [*found, points]

    def knows_worker(self, worker_id: str) -> bool:
        """Whether the worker was heard lately."""
        return worker_id in self._entries

    def _entry(self, worker_id: str) -> _Entry:
        entry = self._entries.get(worker_id)
        if entry is None:
            track = SeriesWriter(worker_id, self._tiers, self._outbox)
            entry = self._entries[worker_id] = _Entry(Counters(self._longest_seconds), track)
        return entry

    # The greenlet

    def _run(self) -> None:
        while True:
            try:
                if self._held is not None:
                    self._recover()
                else:
                    self._close_what_is_over(self._clock())
                    self._flush()
            except StoreUnavailable as error:
                _LOGGER.warning("the history that the last master left cannot be read yet: %s", error)
            except Exception:
                _LOGGER.exception("a round of writing history failed")
            if self._stopping.wait(self._flush_seconds):
                return

    def _recover(self) -> None:
        recovered = self._store.recover([tier.step_seconds for tier in self._tiers])
        for worker_id, remains in _in_turns(recovered.items()):
            self._entry(worker_id).track.restore([remains.get(t.step_seconds, NO_REMAINS) for t in self._tiers])
        held = self._held or ()
        # Nothing switches from here on, so no sample comes between.
        self._held = None
        for one in held:
            self._entry(one.worker_id).track.bucket_at(one.time).add(one.sample, one.seconds)

    def _close_what_is_over(self, now: float) -> None:
        oldest = [now - self._tiers[-1].step_seconds - _JOURNAL_MARGIN_SECONDS] * len(self._tiers)
        finished = 0
        for worker_id, entry in _in_turns(list(self._entries.items())):
            entry.track.close_until(now)
            entry.silent_rounds += 1
            has_left = entry.silent_rounds >= _SILENT_ROUNDS and not self._is_in_table(worker_id)
            if has_left and finished < FINISHED_IN_A_ROUND:
                finished += entry.track.finish()
            if entry.track.is_idle and self._entries.get(worker_id) is entry:
                del self._entries[worker_id]
            for number, first in enumerate(entry.track.oldest_points()):
                if first is not None and first < oldest[number]:
                    oldest[number] = first
        self._oldest = oldest
        dropped = self._outbox.points_dropped
        self._counts.points_dropped.inc(dropped - self._dropped_before)
        self._dropped_before = dropped

    def _flush(self) -> None:
        """Hand the oldest of what waits over, unless something still is."""
        if self._idle.is_set():
            self._idle.clear()
            now = self._clock()
            chunks_before = {tier.step_seconds: now - tier.retention_seconds for tier in self._tiers}
            oldest = zip(self._tiers, self._oldest, strict=True)
            journal_before = {tier.step_seconds: self._journal_before(tier.step_seconds, of) for tier, of in oldest}
            journal, chunks = self._outbox.take()
            self._store.save(HistoryBatch(journal, chunks, journal_before, chunks_before), self._written)

    def _written(self, written: Written) -> None:
        self._idle.set()
        if written.error is not None:
            if not self._failing:
                _LOGGER.warning("history could not be written, and will be tried again: %s", written.error)
            self._failing = True
            self._outbox.put_back()
            return
        self._failing = False
        self._outbox.written()
        self._counts.write.observe(written.seconds)
        self._counts.rows.inc(written.rows)
        self._counts.bytes.inc(written.size_bytes)
        if self._outbox.has_a_full_parcel:
            self._flush()

    def _journal_before(self, step: int, oldest: float) -> float:
        """All points that begin before are in chunks that are stored, and in no bucket that is open."""
        waiting = self._outbox.oldest_chunk(step)
        return oldest if waiting is None else min(oldest, waiting)


def _in_turns(items: Iterable[tuple[str, _Value]]) -> Iterator[tuple[str, _Value]]:
    """The items, with other greenlets in between."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % WORKERS_IN_A_ROW == 0:
            gevent.sleep(0)
