"""Records each update of a worker, and hands complete points and chunks to the store every few seconds."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import gevent
from gevent.event import Event

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.history.fields import Sample, SampleReader
from fleetpulse.master.history.points import Points, Series, Window, decode_chunk
from fleetpulse.master.history.series_writer import (
    NOTHING_RECOVERED,
    HistoryBatch,
    RecoveredState,
    SeriesWriter,
    Tier,
    WriteBuffer,
)
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.records import WorkerTelemetry

_Value = TypeVar("_Value")

_LOGGER = logging.getLogger(__name__)

WORKERS_AT_ONCE = 128
"""After so many workers other greenlets have their turn."""

NOTED_AT_ONCE = 64
"""Updates that are taken in together: under half a millisecond of the hub, and few enough to be kept meanwhile."""

MAX_EARLY_SAMPLES = 50_000
"""Kept while the journal of the last master is read."""

FINISHED_IN_A_ROUND = 200
"""Chunks closed at once of workers that have left: a whole fleet may leave, and the buffer is bounded."""

_SILENT_ROUNDS = 2
"""After so many a worker that is not in the live table has left, rather than not yet registered with a new master."""

_JOURNAL_MARGIN_SECONDS = 60.0
_STOP_SECONDS = 3.0


class WriteResult(NamedTuple):
    """``error`` is why a batch was not written; the rest is of one that was."""

    error: str | None = None
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


class HistoryStore(Protocol):
    """Called on the hub; "waits" means cooperatively. What waits may raise ``StoreUnavailable``."""

    def save(self, batch: HistoryBatch, on_done: Callable[[WriteResult], None]) -> None:
        """Writes it when nothing more urgent waits. One at a time. Does not wait; calls ``on_done`` on the hub."""
        ...

    def recover(self, steps: Sequence[int]) -> Mapping[str, Mapping[int, RecoveredState]]:
        """Waits for what the journal has, by worker and step."""
        ...

    def read(
        self, worker_id: str, step: int, window: Window, fields: Sequence[str], recent: Sequence[Points]
    ) -> Mapping[str, Series]:
        """Waits for those fields of a worker: the stored points of ``step``, and ``recent``, some of which may have
        been stored meanwhile."""
        ...

    def has_worker(self, worker_id: str) -> bool:
        """Waits for whether anything of the worker is stored."""
        ...


@dataclass(slots=True, eq=False)
class _Recording:
    """The state of one worker."""

    sampler: SampleReader
    series: SeriesWriter
    silent_rounds: int = 0


class Recorder:
    """Created, called and stopped on the hub. ``record`` neither waits nor switches.

    Without ``tiers`` it does nothing. ``max_rate_seconds`` is how far apart two updates may be for a rate between
    them; ``in_table`` says whether a worker is in the live table.
    """

    def __init__(
        self,
        store: HistoryStore,
        tiers: Sequence[Tier],
        instruments: Instruments,
        max_rate_seconds: float,
        in_table: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        flush_seconds: float = 15.0,
    ) -> None:
        self._store, self._tiers, self._metrics = store, tuple(tiers), instruments.history
        self._max_rate_seconds, self._clock, self._flush_seconds = max_rate_seconds, clock, flush_seconds
        self._in_table = in_table
        self._buffer = WriteBuffer()
        self._recordings: dict[str, _Recording] = {}
        self._noted: list[tuple[str, WorkerTelemetry]] = []
        self._early: deque[tuple[str, float, Sample, float]] | None = deque()
        """Worker, time, sample and seconds of its rates; ``None`` once the journal is recovered."""

        self._stopping, self._idle = Event(), Event()
        self._idle.set()
        self._failing = False
        self._dropped_before = 0
        self._oldest = [0.0] * len(self._tiers)
        """For each tier, the time before which open chunks and buckets do not need the journal."""

        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Reads what the last master left, then writes every few seconds."""
        if self._tiers:
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.name = "history-recorder"

    def stop(self) -> None:
        """Writes what there is, once no updates come. Waits for some seconds at most."""
        if self._greenlet is None:
            return
        self._stopping.set()
        self._greenlet.join(_STOP_SECONDS)
        self._greenlet.kill()
        self._failing = False
        self._take_in_noted()
        if self._early is None:
            for recording in self._recordings.values():
                recording.series.close_bucket()
            with gevent.Timeout(_STOP_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
                while not self._buffer.is_empty and not self._failing:
                    self._flush()
                    self._idle.wait()
                self._idle.wait()

    def health_error(self) -> str | None:
        """Why nothing is recorded, or ``None``. An unavailable store has a check of its own."""
        is_running = self._greenlet is not None and not self._greenlet.dead
        return None if is_running or not self._tiers else "nobody writes the history"

    def record(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        """The update callback of the ``TelemetryManager``. Notes the update; some are taken in together."""
        self._metrics.samples.inc()
        self._noted.append((worker_id, telemetry))
        if len(self._noted) >= NOTED_AT_ONCE:
            self._take_in_noted()

    def recent(self, worker_id: str, step: int) -> list[Points]:
        """Returns the points that may not be stored in chunks. Call it before reading the store, so that none is
        missed in between."""
        self._take_in_noted()
        found = [decode_chunk(chunk.data) for chunk in self._buffer.chunks_of(worker_id, step)]
        recording = self._recordings.get(worker_id)
        points = recording.series.open_points(step) if recording is not None else None
        return found if points is None or not points.times else [*found, points]

    def knows_worker(self, worker_id: str) -> bool:
        """Whether the worker was heard lately."""
        self._take_in_noted()
        return worker_id in self._recordings

    def _take_in_noted(self) -> None:
        """Makes samples of the noted updates. A row of them costs half of what each costs between other work."""
        noted, self._noted = self._noted, []
        for worker_id, telemetry in noted:
            try:
                self._take_in(worker_id, telemetry)
            except Exception:
                # The others have been noted by other workers' greenlets, and must not suffer.
                _LOGGER.exception("worker %s: an update could not be recorded", worker_id)

    def _take_in(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        recording = self._recording(worker_id)
        recording.silent_rounds = 0
        sample, seconds = recording.sampler.sample(telemetry)
        if self._early is None:
            recording.series.bucket_at(telemetry.last_update).add(sample, seconds)
        elif len(self._early) < MAX_EARLY_SAMPLES:
            self._early.append((worker_id, telemetry.last_update, sample, seconds))

    def _recording(self, worker_id: str) -> _Recording:
        recording = self._recordings.get(worker_id)
        if recording is None:
            series = SeriesWriter(worker_id, self._tiers, self._buffer)
            recording = self._recordings[worker_id] = _Recording(SampleReader(self._max_rate_seconds), series)
        return recording

    # The greenlet

    def _run(self) -> None:
        while True:
            try:
                if self._early is not None:
                    self._recover()
                else:
                    self._close_complete(self._clock())
                    self._flush()
            except StoreUnavailable as error:
                _LOGGER.warning("the history that the last master left cannot be read yet: %s", error)
            except Exception:
                _LOGGER.exception("a round of writing history failed")
            if self._stopping.wait(self._flush_seconds):
                return

    def _recover(self) -> None:
        recovered = self._store.recover([tier.step_seconds for tier in self._tiers])
        for worker_id, states in _in_turns(recovered.items()):
            of_tiers = [states.get(tier.step_seconds, NOTHING_RECOVERED) for tier in self._tiers]
            self._recording(worker_id).series.restore(of_tiers)
        # Nothing switches from here on, so no sample comes between.
        self._take_in_noted()
        early = self._early or ()
        self._early = None
        for worker_id, when, sample, seconds in early:
            self._recording(worker_id).series.bucket_at(when).add(sample, seconds)

    def _close_complete(self, now: float) -> None:
        oldest = [now - self._tiers[-1].step_seconds - _JOURNAL_MARGIN_SECONDS] * len(self._tiers)
        finished = 0
        self._take_in_noted()
        for worker_id, recording in _in_turns(list(self._recordings.items())):
            series = recording.series
            series.close_until(now)
            recording.silent_rounds += 1
            has_left = recording.silent_rounds >= _SILENT_ROUNDS and not self._in_table(worker_id)
            if has_left and finished < FINISHED_IN_A_ROUND:
                finished += series.finish()
            if series.is_empty and self._recordings.get(worker_id) is recording:
                del self._recordings[worker_id]
            for number, first in enumerate(series.oldest_points()):
                if first is not None and first < oldest[number]:
                    oldest[number] = first
        self._oldest = oldest
        dropped = self._buffer.points_dropped
        self._metrics.points_dropped.inc(dropped - self._dropped_before)
        self._dropped_before = dropped

    def _flush(self) -> None:
        """Hands a batch to the store, unless one is being written."""
        if self._idle.is_set():
            self._idle.clear()
            now = self._clock()
            chunks_before = {tier.step_seconds: now - tier.retention_seconds for tier in self._tiers}
            journal_before = {}
            for tier, oldest in zip(self._tiers, self._oldest, strict=True):
                # Earlier points are in stored chunks, and in no open bucket.
                waiting = self._buffer.oldest_point(tier.step_seconds)
                journal_before[tier.step_seconds] = oldest if waiting is None else min(oldest, waiting)
            self._store.save(self._buffer.take(journal_before, chunks_before), self._on_written)

    def _on_written(self, result: WriteResult) -> None:
        self._idle.set()
        if result.error is not None:
            if not self._failing:
                _LOGGER.warning("history could not be written, and will be tried again: %s", result.error)
            self._failing = True
            self._buffer.put_back()
            return
        self._failing = False
        self._buffer.commit()
        self._metrics.write.observe(result.seconds)
        self._metrics.rows.inc(result.rows)
        self._metrics.bytes.inc(result.size_bytes)
        if self._buffer.has_full_batch:
            self._flush()


def _in_turns(items: Iterable[tuple[str, _Value]]) -> Iterator[tuple[str, _Value]]:
    """Yields the items, and lets other greenlets run in between."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % WORKERS_AT_ONCE == 0:
            give_way()
