"""Turns one worker's samples into points and chunks, and buffers them until they are written."""

import zlib
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleetpulse.master.history.points import (
    POINT_BYTES,
    Bucket,
    JournalPoint,
    Points,
    encode_chunk,
    merge,
    pack,
    unpack,
)

GRACE_SECONDS = 2.0
"""How long after its end a bucket waits for samples that are on their way."""

MAX_JOURNAL_POINTS = 60_000
MAX_CHUNK_BYTES = 32 * 1024 * 1024
BATCH_JOURNAL_POINTS = 20_000
BATCH_CHUNKS = 200

_SMALL_STEP_BACK_SECONDS = 60
"""When the clock is set back by less, samples count as of now until the clock is here again."""


class Tier(NamedTuple):
    """Points of one length. A chunk holds the points of one stretch of ``chunk_points`` steps."""

    step_seconds: int
    chunk_points: int
    retention_seconds: float


class PointChunk(NamedTuple):
    """Some points of one worker as they are stored. ``first`` and ``last``: when those points begin."""

    worker_id: str
    step: int
    first: int
    last: int
    points: int
    data: bytes


class RecoveredState(NamedTuple):
    """What the journal has of one worker and step, in the order of writing. Until ``saved`` it is in chunks."""

    points: Points
    saved: int | None


NOTHING_RECOVERED = RecoveredState(Points([], bytearray()), None)


class HistoryBatch(NamedTuple):
    """Written in one transaction. The maps are by step.

    Journal rows are deleted whose points all begin before ``journal_before``, and some of the chunks that end before
    ``chunks_before``.
    """

    journal: Mapping[int, Sequence[JournalPoint]]
    chunks: Sequence[PointChunk]
    journal_before: Mapping[int, float]
    chunks_before: Mapping[int, float]


_NO_BATCH = HistoryBatch({}, (), {}, {})


class WriteBuffer:
    """Points and chunks that wait to be written. Bounded: the oldest go first. Lives on the hub.

    A batch that was taken and not written is put back, and is older than all that came meanwhile.
    """

    def __init__(self, max_journal_points: int = MAX_JOURNAL_POINTS, max_chunk_bytes: int = MAX_CHUNK_BYTES) -> None:
        self._journal: deque[tuple[int, JournalPoint]] = deque(maxlen=max_journal_points)
        self._chunks: deque[PointChunk] = deque()
        self._chunk_bytes = 0
        self._max_chunk_bytes = max_chunk_bytes
        self._taken = _NO_BATCH
        self.points_dropped = 0
        """Points of dropped chunks. Dropped points of the journal are still in memory, and not lost."""

    @property
    def is_empty(self) -> bool:
        return not self._journal and not self._chunks

    @property
    def has_full_batch(self) -> bool:
        return len(self._journal) >= BATCH_JOURNAL_POINTS or len(self._chunks) >= BATCH_CHUNKS

    def add_point(self, step: int, point: JournalPoint) -> None:
        self._journal.append((step, point))

    def add_chunk(self, chunk: PointChunk) -> None:
        self._chunks.append(chunk)
        self._chunk_bytes += len(chunk.data)
        self._drop_oldest()

    def take(self, journal_before: Mapping[int, float], chunks_before: Mapping[int, float]) -> HistoryBatch:
        """Takes the oldest, up to the size of a batch. Call ``commit`` or ``put_back`` next."""
        journal: dict[int, list[JournalPoint]] = {}
        for _ in range(min(len(self._journal), BATCH_JOURNAL_POINTS)):
            step, point = self._journal.popleft()
            journal.setdefault(step, []).append(point)
        chunks = [self._chunks.popleft() for _ in range(min(len(self._chunks), BATCH_CHUNKS))]
        self._chunk_bytes -= sum(len(chunk.data) for chunk in chunks)
        self._taken = HistoryBatch(journal, chunks, journal_before, chunks_before)
        return self._taken

    def commit(self) -> None:
        """What was taken is stored."""
        self._taken = _NO_BATCH

    def put_back(self) -> None:
        """What was taken could not be written."""
        taken, self._taken = self._taken, _NO_BATCH
        older = [(step, point) for step, points in taken.journal.items() for point in points]
        self._journal = deque([*older, *self._journal], maxlen=self._journal.maxlen)
        self._chunks.extendleft(reversed(taken.chunks))
        self._chunk_bytes += sum(len(chunk.data) for chunk in taken.chunks)
        self._drop_oldest()

    def chunks_of(self, worker_id: str, step: int) -> list[PointChunk]:
        """Returns the chunks that are not known to be stored, oldest first."""
        waiting = (*self._taken.chunks, *self._chunks)
        return [chunk for chunk in waiting if chunk.step == step and chunk.worker_id == worker_id]

    def oldest_point(self, step: int) -> int | None:
        """Returns when the first point begins in the chunks that are not known to be stored."""
        waiting = (*self._taken.chunks, *self._chunks)
        return min([chunk.first for chunk in waiting if chunk.step == step], default=None)

    def _drop_oldest(self) -> None:
        while self._chunk_bytes > self._max_chunk_bytes:
            chunk = self._chunks.popleft()
            self._chunk_bytes -= len(chunk.data)
            self.points_dropped += chunk.points


class SeriesWriter:
    """One worker's open bucket and open chunk for each tier; the points of a shorter tier feed the next longer one.

    ``tiers`` are at least one, the shortest step first. What is complete goes to the buffer.
    """

    __slots__ = ("_bucket", "_buffer", "_next", "_phase", "_points", "_tier", "_worker_id")

    def __init__(self, worker_id: str, tiers: Sequence[Tier], buffer: WriteBuffer) -> None:
        self._worker_id, self._tier, self._buffer = worker_id, tiers[0], buffer
        self._next = SeriesWriter(worker_id, tiers[1:], buffer) if len(tiers) > 1 else None
        self._bucket: Bucket | None = None
        self._points = _no_points()
        # Spreads the ends of a fleet's chunks over time.
        self._phase = zlib.crc32(worker_id.encode()) % self._tier.chunk_points

    @property
    def step(self) -> int:
        return self._tier.step_seconds

    @property
    def is_empty(self) -> bool:
        return self._bucket is None and not self._points.times and (self._next is None or self._next.is_empty)

    def bucket_at(self, time: float) -> Bucket:
        """Returns the bucket for a sample of this time. Closes the bucket before."""
        step = self._tier.step_seconds
        index = int(time // step)
        if self._bucket is not None and not 0 <= self._bucket.index - index <= _SMALL_STEP_BACK_SECONDS // step:
            self.close_bucket()
        if self._bucket is None:
            self._bucket = Bucket(index)
        return self._bucket

    def close_bucket(self) -> None:
        """Makes a point of the open bucket. Longer buckets stay open: the journal of the shorter ones has their
        points."""
        if self._bucket is not None:
            bucket, self._bucket = self._bucket, None
            time, point = bucket.index * self._tier.step_seconds, bucket.point()
            data = pack(point)
            self._buffer.add_point(self._tier.step_seconds, JournalPoint(self._worker_id, time, data))
            self._append(time, data)
            if self._next is not None:
                self._next.bucket_at(time).add_point(point)

    def close_until(self, now: float) -> None:
        """Closes buckets and chunks whose time is over."""
        step = self._tier.step_seconds
        if self._bucket is not None and (self._bucket.index + 1) * step + GRACE_SECONDS <= now:
            self.close_bucket()
        over = int(now - step - GRACE_SECONDS)
        times = self._points.times
        if times and self._chunk_number(over) > self._chunk_number(times[-1]):
            self._close_chunk()
        if self._next is not None:
            self._next.close_until(now)

    def finish(self) -> int:
        """Closes the chunks of a worker that has left. Returns how many.

        A bucket whose time is not over stays open, with its chunk: if the worker returns, no two chunks begin with the
        same point.
        """
        closed = 0 if self._next is None else self._next.finish()
        if self._bucket is None and self._points.times:
            self._close_chunk()
            closed += 1
        return closed

    def restore(self, recovered: Sequence[RecoveredState]) -> int | None:
        """Adds what the last master wrote of each tier, before any sample comes. Returns when the newest point begins,
        here or in a chunk."""
        own = recovered[0]
        for time, data in own.points.packed():
            if own.saved is None or time > own.saved:
                self._append(time, data)
        newest = [*self._points.times[-1:], *([] if own.saved is None else [own.saved])]
        if self._next is not None:
            done = self._next.restore(recovered[1:])
            for time, data in own.points.packed():
                if done is None or time >= done + self._next.step:
                    self._next.bucket_at(time).add_point(unpack(data))
        return max(newest, default=None)

    def oldest_points(self) -> list[int | None]:
        """Returns, for each tier, when the first point begins that is in no chunk."""
        times = self._points.times
        return [times[0] if times else None, *(self._next.oldest_points() if self._next else ())]

    def open_points(self, step: int) -> Points | None:
        """Returns a copy of the points of that step that are in no chunk."""
        if step == self._tier.step_seconds:
            return self._points.copy()
        return self._next.open_points(step) if self._next is not None else None

    def _append(self, time: int, data: bytes) -> None:
        times = self._points.times
        if times and time == times[-1]:
            self._points.data[-POINT_BYTES:] = merge(bytes(self._points.data[-POINT_BYTES:]), data)
            return
        if times and (time < times[-1] or self._chunk_number(time) != self._chunk_number(times[-1])):
            self._close_chunk()
        self._points.append(time, data)

    def _close_chunk(self) -> None:
        step, times = self._tier.step_seconds, self._points.times
        encoded = encode_chunk(self._points, step)
        self._buffer.add_chunk(PointChunk(self._worker_id, step, times[0], times[-1], len(times), encoded))
        self._points = _no_points()

    def _chunk_number(self, time: int) -> int:
        return (time // self._tier.step_seconds + self._phase) // self._tier.chunk_points


def _no_points() -> Points:
    return Points(array("q"), bytearray())
