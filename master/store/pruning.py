"""What has been kept long enough, removed in small steps by the writer's thread.

The logs of a task go first. How long each of them was stays with its attempt, so that a reader learns that it has
expired. Later the task goes, with everything about it.
"""

from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, func, select, update

from fleetpulse.master.store.tables import attempts, events, log_chunks, tasks

DAY_SECONDS = 24 * 3600.0

STEP_TASKS = 100
STEP_ROWS = 1_000
STEP_BYTES = 8 * 1024 * 1024
"""What one step removes at most, so that the writes that wait behind it wait for some milliseconds only."""


class Retention(NamedTuple):
    """How long things are kept after their task has ended, in seconds. Logs go with their task at the latest."""

    log_seconds: float = 7 * DAY_SECONDS
    task_seconds: float = 90 * DAY_SECONDS


def prune_step(connection: Connection, retention: Retention, now: float) -> bool:
    """Remove a little of what is too old, in the caller's transaction. ``False``: nothing was."""
    log_seconds = min(retention.log_seconds, retention.task_seconds)
    with_logs = _ended_before(connection, now - log_seconds, logs_pruned=False)
    if with_logs:
        _prune_logs(connection, with_logs)
        return True
    too_old = _ended_before(connection, now - retention.task_seconds, logs_pruned=True)
    if not too_old:
        return False
    for table in (tasks, attempts, events, log_chunks):
        connection.execute(delete(table).where(table.c.task_id.in_(too_old)))
    return True


def _ended_before(connection: Connection, time: float, *, logs_pruned: bool) -> list[str]:
    ended = select(tasks.c.task_id).where(tasks.c.logs_pruned.is_(logs_pruned), tasks.c.finished_at < time)
    return list(connection.scalars(ended.order_by(tasks.c.finished_at).limit(STEP_TASKS)))


def _prune_logs(connection: Connection, task_ids: list[str]) -> None:
    _note_sizes(connection, task_ids)
    rows, size = STEP_ROWS, STEP_BYTES
    done = []
    for task_id in task_ids:
        removed_rows, removed_bytes, is_done = _remove_chunks(connection, task_id, rows, size)
        rows, size = rows - removed_rows, size - removed_bytes
        if is_done:
            done.append(task_id)
        if rows <= 0 or size <= 0:
            break
    connection.execute(update(tasks).where(tasks.c.task_id.in_(done)).values(logs_pruned=True))


def _note_sizes(connection: Connection, task_ids: list[str]) -> None:
    """From here on every reader is told that these logs have expired."""
    end = (
        select(func.max(log_chunks.c.end_offset))
        .where(and_(log_chunks.c.task_id == attempts.c.task_id, log_chunks.c.attempt == attempts.c.attempt))
        .scalar_subquery()
    )
    unknown = and_(attempts.c.task_id.in_(task_ids), attempts.c.log_expired_bytes.is_(None))
    connection.execute(update(attempts).where(unknown).values(log_expired_bytes=end))


def _remove_chunks(connection: Connection, task_id: str, rows: int, size: int) -> tuple[int, int, bool]:
    """How many rows and bytes were removed, and whether that was all."""
    key = (log_chunks.c.attempt, log_chunks.c.start_offset)
    found = connection.execute(
        select(*key, log_chunks.c.end_offset).where(log_chunks.c.task_id == task_id).order_by(*key).limit(rows + 1)
    ).all()
    removed_rows = removed_bytes = 0
    for attempt, start, end in found[:rows]:
        if removed_bytes >= size:
            break
        where = (log_chunks.c.task_id == task_id, log_chunks.c.attempt == attempt, log_chunks.c.start_offset == start)
        connection.execute(delete(log_chunks).where(*where))
        removed_rows, removed_bytes = removed_rows + 1, removed_bytes + end - start
    return removed_rows, removed_bytes, removed_rows == len(found)
