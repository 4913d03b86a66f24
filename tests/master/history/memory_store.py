"""A ``HistoryStore`` in memory."""

from collections.abc import Callable, Mapping, Sequence

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.history.fields import INDEX_BY_NAME
from fleetpulse.master.history.points import Points, Series, Window, decode_chunk, resample
from fleetpulse.master.history.recorder import Recorder, WriteResult
from fleetpulse.master.history.series_writer import HistoryBatch, PointChunk, RecoveredState
from fleetpulse.master.history.service import HistoryService
from tests.master.fleet import Fleet
from tests.master.history.builders import TIERS


class MemoryStore:
    """A store that can be away."""

    def __init__(self) -> None:
        self.journal: dict[str, dict[int, Points]] = {}
        self.chunks: list[PointChunk] = []
        self.batches: list[HistoryBatch] = []
        self.trouble: str | None = None
        self.answers = True
        self._unanswered: list[Callable[[], None]] = []

    def save(self, batch: HistoryBatch, on_done: Callable[[WriteResult], None]) -> None:
        if not self.answers:
            self._unanswered.append(lambda: self.save(batch, on_done))
        elif self.trouble is not None:
            on_done(WriteResult(self.trouble))
        else:
            self.batches.append(batch)
            for step, points in batch.journal.items():
                for worker_id, time, data in points:
                    self.of(worker_id, step).append(time, data)
            self.chunks += batch.chunks
            on_done(WriteResult(None, len(batch.journal) + len(batch.chunks), 100, 0.001))

    def answer(self) -> None:
        self.answers = True
        while self._unanswered:
            self._unanswered.pop(0)()

    def of(self, worker_id: str, step: int) -> Points:
        by_step = self.journal.setdefault(worker_id, {})
        return by_step.setdefault(step, Points([], bytearray()))

    def recover(self, steps: Sequence[int]) -> Mapping[str, Mapping[int, RecoveredState]]:
        if self.trouble is not None:
            raise StoreUnavailable(self.trouble)
        return {
            worker_id: {step: RecoveredState(points, None) for step, points in by_step.items()}
            for worker_id, by_step in self.journal.items()
        }

    def read(
        self, worker_id: str, step: int, window: Window, fields: Sequence[str], recent: Sequence[Points]
    ) -> Mapping[str, Series]:
        stored = [decode_chunk(one.data) for one in self.chunks if (one.worker_id, one.step) == (worker_id, step)]
        found = resample(window, [*stored, *recent], [INDEX_BY_NAME[field] for field in fields])
        return dict(zip(fields, found, strict=True))

    def has_worker(self, worker_id: str) -> bool:
        return any(one.worker_id == worker_id for one in self.chunks)


def history_of(fleet: Fleet) -> HistoryService:
    """The history of a fleet of which nothing is recorded yet."""
    store = MemoryStore()
    clock = fleet.clock.port.wall
    recorder = Recorder(store, TIERS, fleet.instruments, 30.0, fleet.manager.knows_worker, clock)
    return HistoryService(store, recorder, TIERS, fleet.instruments, fleet.manager.knows_worker, None, clock)
