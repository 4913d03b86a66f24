"""What waits to be written: bounded, the oldest goes first."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleetpulse.master.history.points import JournalPoint
from fleetpulse.master.history.ports import Chunk

MAX_JOURNAL_POINTS = 60_000
MAX_CHUNK_BYTES = 32 * 1024 * 1024
BATCH_JOURNAL_POINTS = 20_000
BATCH_CHUNKS = 200


class Batch(NamedTuple):
    """What goes into one batch."""

    journal: Mapping[int, Sequence[JournalPoint]]
    chunks: Sequence[Chunk]


class Outbox:
    """Lives on the hub. What was taken and not written is put back, and is older than all that came meanwhile."""

    def __init__(self, max_journal_points: int = MAX_JOURNAL_POINTS, max_chunk_bytes: int = MAX_CHUNK_BYTES) -> None:
        self._journal: deque[tuple[int, JournalPoint]] = deque()
        self._chunks: deque[Chunk] = deque()
        self._chunk_bytes = 0
        self._max_journal_points, self._max_chunk_bytes = max_journal_points, max_chunk_bytes
        self._taken = Batch({}, ())
        self.points_dropped = 0
        """Points of chunks that had to make room. Those of the journal are still in memory, and not lost by that."""

    @property
    def is_empty(self) -> bool:
        return not self._journal and not self._chunks

    @property
    def has_a_full_parcel(self) -> bool:
        """So much waits that another batch should not."""
        return len(self._journal) >= BATCH_JOURNAL_POINTS or len(self._chunks) >= BATCH_CHUNKS

    def add_point(self, step: int, point: JournalPoint) -> None:
        self._journal.append((step, point))
        if len(self._journal) > self._max_journal_points:
            self._journal.popleft()

    def add_chunk(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._chunk_bytes += len(chunk.data)
        self._make_room()

    def take(self) -> Batch:
        """The oldest of what waits, not more than a transaction should hold. Then say ``written`` or ``put_back``."""
        journal: dict[int, list[JournalPoint]] = {}
        for _ in range(min(len(self._journal), BATCH_JOURNAL_POINTS)):
            step, point = self._journal.popleft()
            journal.setdefault(step, []).append(point)
        chunks = [self._chunks.popleft() for _ in range(min(len(self._chunks), BATCH_CHUNKS))]
        self._chunk_bytes -= sum(len(chunk.data) for chunk in chunks)
        self._taken = Batch(journal, chunks)
        return self._taken

    def written(self) -> None:
        self._taken = Batch({}, ())

    def put_back(self) -> None:
        journal, chunks = self._taken
        self._taken = Batch({}, ())
        for step, points in journal.items():
            self._journal.extendleft((step, point) for point in reversed(points))
        while len(self._journal) > self._max_journal_points:
            self._journal.popleft()
        self._chunks.extendleft(reversed(chunks))
        self._chunk_bytes += sum(len(chunk.data) for chunk in chunks)
        self._make_room()

    def chunks_of(self, worker_id: str, step: int) -> list[Chunk]:
        """Those that are not known to be stored, oldest first."""
        waiting = (*self._taken.chunks, *self._chunks)
        return [chunk for chunk in waiting if chunk.step == step and chunk.worker_id == worker_id]

    def oldest_chunk(self, step: int) -> int | None:
        """When the points begin that are in no stored chunk, of those that are here."""
        waiting = (*self._taken.chunks, *self._chunks)
        return min([chunk.first for chunk in waiting if chunk.step == step], default=None)

    def _make_room(self) -> None:
        while self._chunk_bytes > self._max_chunk_bytes:
            chunk = self._chunks.popleft()
            self._chunk_bytes -= len(chunk.data)
            self.points_dropped += chunk.points
