"""The history of telemetry in the database: ``master.history.recorder.HistoryStore`` on SQLite or PostgreSQL."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gevent.lock import BoundedSemaphore
from sqlalchemy import Connection, Engine, delete, func, insert, literal, select, tuple_

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.history.fields import INDEX_BY_NAME
from fleetpulse.master.history.points import (
    Points,
    Series,
    Window,
    decode_chunk,
    decode_journal,
    encode_journal,
    resample,
)
from fleetpulse.master.history.recorder import WriteResult
from fleetpulse.master.history.series_writer import HistoryBatch, RecoveredState
from fleetpulse.master.store.reads import Readers
from fleetpulse.master.store.tables import history_chunks, history_journal, upsert

PRUNED_AT_ONCE = 1_000
"""Chunks that a batch removes at most, so that the writes behind it wait for some milliseconds only."""

_KEY = ("worker_id", "step", "first")
_OVERDUE_SECONDS = 5.0
_ROWS_READ_AT_ONCE = 16
_READ_SECONDS = 10.0
_RECOVER_SECONDS = 120.0


class HistoryJob(NamedTuple):
    """``since`` is when it was handed over, by the monotonic clock."""

    batch: HistoryBatch
    on_done: Callable[[WriteResult], None]
    since: float

    @property
    def is_overdue(self) -> bool:
        """Whether it has waited long enough for other writes."""
        return time.monotonic() - self.since > _OVERDUE_SECONDS


class SqlHistoryStore:
    """Created by ``SqlTaskStore``, with its threads. Reads one at a time, so that reads of tasks find a free thread."""

    def __init__(self, put: Callable[[HistoryJob], None], readers: Readers) -> None:
        self._put, self._readers = put, readers
        self._turn = BoundedSemaphore()

    def save(self, batch: HistoryBatch, on_done: Callable[[WriteResult], None]) -> None:
        """See ``HistoryStore``. Tried once, in a transaction of its own."""
        self._put(HistoryJob(batch, on_done, time.monotonic()))

    def recover(self, steps: Sequence[int]) -> Mapping[str, Mapping[int, RecoveredState]]:
        """See ``HistoryStore``."""
        return self._readers.run(lambda connection: _recover(connection, steps), _RECOVER_SECONDS)

    def read(
        self, worker_id: str, step: int, window: Window, fields: Sequence[str], recent: Sequence[Points]
    ) -> Mapping[str, Series]:
        """See ``HistoryStore``. The reader's thread resamples, too."""
        columns = [INDEX_BY_NAME[field] for field in fields]

        def read(connection: Connection) -> Mapping[str, Series]:
            stored = _read_chunks(connection, worker_id, step, window)
            return dict(zip(fields, resample(window, [*stored, *recent], columns), strict=True))

        if not self._turn.acquire(timeout=_READ_SECONDS):
            raise StoreUnavailable(f"others have read history for {_READ_SECONDS:g} s")
        try:
            return self._readers.run(read, _READ_SECONDS)
        finally:
            self._turn.release()

    def has_worker(self, worker_id: str) -> bool:
        """See ``HistoryStore``."""
        one = select(literal(1)).where(history_chunks.c.worker_id == worker_id).limit(1)
        return self._readers.run(lambda connection: connection.scalar(one) is not None, _READ_SECONDS)


def write_batch(engine: Engine, batch: HistoryBatch) -> WriteResult:
    """Called by the writer's thread. Raises what the database raises."""
    started = time.monotonic()
    journal: list[dict[str, Any]] = [
        {"step": step, "newest": max(point.time for point in points), "data": encode_journal(points)}
        for step, points in batch.journal.items()
    ]
    chunks: list[dict[str, Any]] = [
        {"worker_id": c.worker_id, "step": c.step, "first": c.first, "last": c.last, "data": c.data}
        for c in batch.chunks
    ]
    with engine.begin() as connection:
        if journal:
            connection.execute(insert(history_journal), journal)
        upsert(connection, history_chunks, chunks, _KEY)
        _prune(connection, batch)
    size = sum(len(row["data"]) for row in (*journal, *chunks))
    return WriteResult(None, len(journal) + len(chunks), size, time.monotonic() - started)


def _prune(connection: Connection, batch: HistoryBatch) -> None:
    for step, before in batch.journal_before.items():
        connection.execute(
            delete(history_journal).where(history_journal.c.step == step, history_journal.c.newest < before)
        )
    key = [history_chunks.c[name] for name in _KEY]
    for step, before in batch.chunks_before.items():
        too_old = select(*key).where(history_chunks.c.step == step, history_chunks.c.last < before)
        chosen = too_old.order_by(history_chunks.c.last).limit(PRUNED_AT_ONCE)
        connection.execute(delete(history_chunks).where(tuple_(*key).in_(chosen)))


def _recover(connection: Connection, steps: Sequence[int]) -> dict[str, dict[int, RecoveredState]]:
    journalled: dict[str, dict[int, Points]] = {}
    oldest = sys.maxsize
    columns = (history_journal.c.step, history_journal.c.data)
    rows = select(*columns).where(history_journal.c.step.in_(steps)).order_by(history_journal.c.number)
    for step, data in connection.execute(rows, execution_options={"yield_per": _ROWS_READ_AT_ONCE}):
        for worker_id, begins, point in decode_journal(data):
            oldest = min(oldest, begins)
            of_worker = journalled.setdefault(worker_id, {step: Points([], bytearray()) for step in steps})
            of_worker[step].append(begins, point)
    saved = _newest_saved(connection, steps, oldest - 2 * max(steps))
    return {
        worker_id: {step: RecoveredState(points, saved.get((worker_id, step))) for step, points in by_step.items()}
        for worker_id, by_step in journalled.items()
    }


def _newest_saved(connection: Connection, steps: Sequence[int], since: int) -> dict[tuple[str, int], int]:
    """Returns when the last point begins that is in a chunk, by worker and step."""
    table = history_chunks.c
    newest = select(table.worker_id, table.step, func.max(table.last))
    found = newest.where(table.step.in_(steps), table.last >= since).group_by(table.worker_id, table.step)
    return {(worker_id, step): last for worker_id, step, last in connection.execute(found)}


def _read_chunks(connection: Connection, worker_id: str, step: int, window: Window) -> list[Points]:
    """Returns every chunk that has a point in the window, oldest first."""
    table = history_chunks.c
    chunks = (
        select(table.data)
        .where(table.worker_id == worker_id, table.step == step)
        .where(table.first < window.stop, table.last >= window.start)
        .order_by(table.first)
    )
    return [decode_chunk(chunk) for chunk in connection.scalars(chunks)]
