"""One worker's way into the history: an open bucket and an open chunk for each tier, the longer fed by the shorter."""

import zlib
from array import array
from collections.abc import Sequence

from fleetpulse.master.history.bucket import Bucket
from fleetpulse.master.history.outbox import Outbox
from fleetpulse.master.history.points import POINT_BYTES, JournalPoint, Points, combined, encode_chunk, pack, unpack
from fleetpulse.master.history.ports import Chunk, RecoveredState, Tier

GRACE_SECONDS = 2.0
"""After its end a bucket waits so long for what is on its way."""

_SMALL_STEP_BACK_SECONDS = 60
"""By so much a clock may be set back without a cut: what comes counts as of now until the clock is here again."""


class SeriesWriter:
    """``tiers`` are at least one, from the shortest step on. What is finished goes to the outbox."""

    __slots__ = ("_bucket", "_is_fed_by_points", "_next", "_outbox", "_phase", "_points", "_tier", "_worker_id")

    def __init__(
        self, worker_id: str, tiers: Sequence[Tier], outbox: Outbox, *, is_fed_by_points: bool = False
    ) -> None:
        self._worker_id, self._tier, self._outbox = worker_id, tiers[0], outbox
        self._is_fed_by_points = is_fed_by_points
        self._next = SeriesWriter(worker_id, tiers[1:], outbox, is_fed_by_points=True) if len(tiers) > 1 else None
        self._bucket: Bucket | None = None
        self._points = _none()
        # So that the chunks of a fleet end one after the other, and not all at once.
        self._phase = zlib.crc32(worker_id.encode()) % self._tier.chunk_points

    @property
    def is_idle(self) -> bool:
        """There is nothing in it."""
        return self._bucket is None and not self._points.times and (self._next is None or self._next.is_idle)

    def bucket_at(self, time: float) -> Bucket:
        """Where a sample of this time goes. It ends the bucket before."""
        step = self._tier.step_seconds
        index = int(time // step)
        if self._bucket is not None and not 0 <= self._bucket.index - index <= _SMALL_STEP_BACK_SECONDS // step:
            self.close_bucket()
        if self._bucket is None:
            self._bucket = Bucket(index, is_compact=self._is_fed_by_points)
        return self._bucket

    def close_bucket(self) -> None:
        """Make a point of what is there. A bucket of a longer step stays open: the shorter one's journal has it."""
        if self._bucket is not None:
            bucket, self._bucket = self._bucket, None
            time, point = bucket.index * self._tier.step_seconds, bucket.point()
            data = pack(point)
            self._outbox.add_point(self._tier.step_seconds, JournalPoint(self._worker_id, time, data))
            self._keep(time, data)
            if self._next is not None:
                self._next.bucket_at(time).add_point(point)

    def close_until(self, now: float) -> None:
        """End what is over, though no sample came that says so."""
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
        """Close the chunks, for nothing more comes; how many.

        A bucket whose time is not over stays open, and so does the chunk that it goes to: should something come all the
        same, no two chunks begin with the same point.
        """
        closed = 0 if self._next is None else self._next.finish()
        if self._bucket is None and self._points.times:
            self._close_chunk()
            closed += 1
        return closed

    def restore(self, recovered: Sequence[RecoveredState]) -> None:
        """Take in what a master before this one has written of each tier, before anything else comes."""
        own = recovered[0]
        for time, data in _each(own.points):
            if own.saved is None or time > own.saved:
                self._keep(time, data)
        if self._next is not None:
            self._next.restore(recovered[1:])
            done = max(self._next.newest_points(recovered[1].saved), default=None)
            for time, data in _each(own.points):
                if done is None or time >= done + self._next.step:
                    self._next.bucket_at(time).add_point(unpack(data))

    @property
    def step(self) -> int:
        return self._tier.step_seconds

    def newest_points(self, saved: int | None) -> list[int]:
        """When the newest points begin, here and in the store."""
        return [*self._points.times[-1:], *([] if saved is None else [saved])]

    def oldest_points(self) -> list[int | None]:
        """For each tier, when the first point begins that is in no chunk."""
        times = self._points.times
        return [times[0] if times else None, *(self._next.oldest_points() if self._next else ())]

    def open_points(self, step: int) -> Points | None:
        """A copy of what is in no chunk of that step."""
        if step == self._tier.step_seconds:
            return self._points.copy()
        return self._next.open_points(step) if self._next is not None else None

    def _keep(self, time: int, data: bytes) -> None:
        times = self._points.times
        if times and time == times[-1]:
            self._points.data[-POINT_BYTES:] = combined(bytes(self._points.data[-POINT_BYTES:]), data)
            return
        if times and (time < times[-1] or self._chunk_number(time) != self._chunk_number(times[-1])):
            self._close_chunk()
        self._points.append(time, data)

    def _close_chunk(self) -> None:
        step, times = self._tier.step_seconds, self._points.times
        encoded = encode_chunk(self._points, step)
        self._outbox.add_chunk(Chunk(self._worker_id, step, times[0], times[-1], len(times), encoded))
        self._points = _none()

    def _chunk_number(self, time: int) -> int:
        return (time // self._tier.step_seconds + self._phase) // self._tier.chunk_points


def _none() -> Points:
    return Points(array("q"), bytearray())


def _each(points: Points) -> list[tuple[int, bytes]]:
    data = bytes(points.data)
    return [
        (time, data[start : start + POINT_BYTES])
        for time, start in zip(points.times, range(0, len(data), POINT_BYTES), strict=True)
    ]
