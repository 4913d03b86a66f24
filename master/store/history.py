"""The history of telemetry as rows. Called by the store's threads.

A batch is tried once, in a transaction of its own; whoever gave it hears how that went, and may give it again.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, insert, literal, select, tuple_

from fleetpulse.master.history.points import Points, decode_chunk, decode_journal, encode_journal
from fleetpulse.master.history.ports import HistoryBatch, RecoveredState, Written
from fleetpulse.master.store.tables import history_chunks, history_journal
from fleetpulse.master.store.upsert import insert_or_keep

PRUNED_AT_ONCE = 1_000
"""Chunks that a batch removes at most, so that the writes that wait behind it wait for some milliseconds only."""

_KEY = ("worker_id", "step", "first")
_PATIENCE_SECONDS = 5.0
_ROWS_READ_AT_ONCE = 16


class HistoryJob(NamedTuple):
    """A batch, who hears of its end, and since when it waits on the monotonic clock."""

    batch: HistoryBatch
    on_done: Callable[[Written], None]
    since: float

    @property
    def is_overdue(self) -> bool:
        """It has stood back for long enough."""
        return time.monotonic() - self.since > _PATIENCE_SECONDS


def write_batch(engine: Engine, batch: HistoryBatch) -> Written:
    """In a transaction of its own. Raises what the database raises."""
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
        insert_or_keep(connection, history_chunks, chunks, _KEY)
        _prune(connection, batch)
    size = sum(len(row["data"]) for row in (*journal, *chunks))
    return Written(None, len(journal) + len(chunks), size, time.monotonic() - started)


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


def recover(connection: Connection, steps: Sequence[int]) -> dict[str, dict[int, RecoveredState]]:
    """All that the journal has, by worker and step."""
    journalled: dict[str, dict[int, Points]] = {}
    oldest = sys.maxsize
    columns = (history_journal.c.step, history_journal.c.data)
    rows = select(*columns).where(history_journal.c.step.in_(steps)).order_by(history_journal.c.number)
    for step, data in connection.execute(rows, execution_options={"yield_per": _ROWS_READ_AT_ONCE}):
        for worker_id, begins, point in decode_journal(data):
            oldest = min(oldest, begins)
            of_worker = journalled.setdefault(worker_id, {step: Points([], bytearray()) for step in steps})
            of_worker[step].append(begins, point)
    saved = _saved(connection, steps, oldest - 2 * max(steps))
    return {
        worker_id: {step: RecoveredState(points, saved.get((worker_id, step))) for step, points in by_step.items()}
        for worker_id, by_step in journalled.items()
    }


def _saved(connection: Connection, steps: Sequence[int], since: int) -> dict[tuple[str, int], int]:
    """When the last point begins that is in a chunk, for each worker and step."""
    table = history_chunks.c
    newest = select(table.worker_id, table.step, func.max(table.last))
    found = newest.where(table.step.in_(steps), table.last >= since).group_by(table.worker_id, table.step)
    return {(worker_id, step): last for worker_id, step, last in connection.execute(found)}


def stored_points(connection: Connection, worker_id: str, step: int, start: int, stop: int) -> list[Points]:
    """Every chunk that has a point from ``start`` until before ``stop``, oldest first."""
    chunks = (
        select(history_chunks.c.data)
        .where(history_chunks.c.worker_id == worker_id, history_chunks.c.step == step)
        .where(history_chunks.c.first < stop, history_chunks.c.last >= start)
        .order_by(history_chunks.c.first)
    )
    return [decode_chunk(chunk) for chunk in connection.scalars(chunks)]


def has_worker(connection: Connection, worker_id: str) -> bool:
    return connection.scalar(select(literal(1)).where(history_chunks.c.worker_id == worker_id).limit(1)) is not None
