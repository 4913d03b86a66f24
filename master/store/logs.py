"""Logs as rows of bytes.

Stored bytes never change: of a chunk that overlaps them, only the rest is written. A chunk that begins beyond the end
leaves a hole, which stays. A reader skips a hole, so the offset of what it gets may be larger than the one it asked
for; an offset never means another byte.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, func, select

from fleetpulse.master.store.tables import attempts, log_chunks, upsert
from fleetpulse.master.tasks.records import LogChunk, LogSlice

_LOGGER = logging.getLogger(__name__)

ROW_BYTES = 128 * 1024
"""Consecutive chunks of one batch are joined up to this size."""

_SIZES_KEPT = 20_000
_ROWS_READ_AT_ONCE = 16

_Log = tuple[str, int]


class LogWriter:
    """Caches the sizes of the logs that were written lately. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[_Log, int] = OrderedDict()
        self._rows: list[LogChunk] = []
        self._last: dict[_Log, int] = {}

    def append(self, connection: Connection, chunk: LogChunk) -> None:
        """Adds the new part of a chunk to what ``flush`` writes."""
        log = (chunk.task_id, chunk.attempt)
        size = self._size(connection, log)
        end = chunk.offset + len(chunk.data)
        if end <= size or not chunk.data:
            return
        if chunk.offset < size:
            chunk = chunk._replace(offset=size, data=chunk.data[size - chunk.offset :])
        elif chunk.offset > size:
            _LOGGER.warning(
                "the log of attempt %d of task %s has a hole from byte %d to %d",
                chunk.attempt, chunk.task_id, size, chunk.offset,
            )  # fmt: skip
        self._sizes[log] = end
        last = self._last.get(log)
        if last is not None:
            before = self._rows[last]
            if before.offset + len(before.data) == chunk.offset and len(before.data) + len(chunk.data) <= ROW_BYTES:
                self._rows[last] = before._replace(data=before.data + chunk.data)
                return
        self._last[log] = len(self._rows)
        self._rows.append(chunk)

    def flush(self, connection: Connection) -> None:
        rows = [
            {
                "task_id": chunk.task_id,
                "attempt": chunk.attempt,
                "start_offset": chunk.offset,
                "end_offset": chunk.offset + len(chunk.data),
                "data": chunk.data,
            }
            for chunk in self._rows
        ]
        upsert(connection, log_chunks, rows, ("task_id", "attempt", "start_offset"))
        self._rows, self._last = [], {}
        while len(self._sizes) > _SIZES_KEPT:
            self._sizes.popitem(last=False)

    def roll_back(self) -> None:
        """The transaction failed: forgets what was appended and the cached sizes."""
        self._sizes.clear()
        self._rows, self._last = [], {}

    def _size(self, connection: Connection, log: _Log) -> int:
        size = self._sizes.get(log)
        if size is None:
            size = self._sizes[log] = log_size(connection, *log)
        self._sizes.move_to_end(log)
        return size


def log_size(connection: Connection, task_id: str, attempt: int) -> int:
    """Returns the number of bytes, with holes; 0 for no log."""
    ends = select(log_chunks.c.end_offset).where(log_chunks.c.task_id == task_id, log_chunks.c.attempt == attempt)
    return connection.scalar(ends.order_by(log_chunks.c.start_offset.desc()).limit(1)) or 0


def read_slice(connection: Connection, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
    """Reads at most ``limit`` bytes from ``offset``, which counts from the end when it is negative."""
    is_attempt = (attempts.c.task_id == task_id) & (attempts.c.attempt == attempt)
    expired_bytes = connection.scalar(select(attempts.c.log_expired_bytes).where(is_attempt))
    size = log_size(connection, task_id, attempt) if expired_bytes is None else expired_bytes
    start = max(size + offset, 0) if offset < 0 else offset
    if expired_bytes is not None:
        return LogSlice(start, b"", size, expired=True)
    is_log = (log_chunks.c.task_id == task_id) & (log_chunks.c.attempt == attempt)
    # The chunk with the first byte is the last one that begins at or before it.
    first = select(func.max(log_chunks.c.start_offset)).where(is_log, log_chunks.c.start_offset <= start)
    statement = (
        select(log_chunks.c.start_offset, log_chunks.c.data)
        .where(is_log, log_chunks.c.start_offset >= func.coalesce(first.scalar_subquery(), 0))
        .order_by(log_chunks.c.start_offset)
    )
    with connection.execute(statement, execution_options={"yield_per": _ROWS_READ_AT_ONCE}) as chunks:
        return LogSlice(*_joined(chunks, start, limit), size=size)


def _joined(chunks: Iterable[Any], start: int, limit: int) -> tuple[int, bytes]:
    """Returns the offset of the first byte at or after ``start``, and the bytes from there to a hole."""
    found, data = start, bytearray()
    for chunk_start, chunk in chunks:
        if chunk_start + len(chunk) <= start:
            continue
        if not data:
            found = max(start, chunk_start)
        elif chunk_start != found + len(data):
            break
        data += chunk[max(found - chunk_start, 0) :] if not data else chunk
        if len(data) >= limit:
            break
    return found, bytes(data[:limit])
