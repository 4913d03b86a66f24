"""The statements of the writer's thread: batches of writes, and the removal of old rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, func, select, update

from fleetpulse.master.errors import IdempotencyConflict
from fleetpulse.master.store import rows
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.logs import LogWriter
from fleetpulse.master.store.tables import attempts, events, log_chunks, tasks, upsert, workers
from fleetpulse.master.store.writes import AppendLog, Save, SaveDrain, SaveWorker, Submit, Undo, Write
from fleetpulse.master.tasks.records import Attempt, Changes, Drain, Idempotency, Task

DAY_SECONDS = 24 * 3600.0

# The most that one step removes, so that the writes behind it wait for some milliseconds only.
STEP_TASKS = 100
STEP_ROWS = 1_000
STEP_BYTES = 8 * 1024 * 1024


class Batch:
    """Many writes as few statements, in one transaction. Of each task and attempt only the last row is written."""

    def __init__(self, connection: Connection, logs: LogWriter, encryptor: Encryptor) -> None:
        self._connection, self._logs, self._encryptor = connection, logs, encryptor
        self._tasks: dict[str, Task] = {}
        self._keys: dict[str, Idempotency] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._events: list[rows.Row] = []
        self._workers: dict[str, SaveWorker] = {}

    def write(self, writes: Sequence[Write]) -> None:
        """Writes all of them, and sets the outcomes of those that are waited for."""
        for write in writes:  # first: a deleted task leaves its idempotency key to those that follow
            if isinstance(write, Undo) and isinstance(write.write, Submit):
                self._delete(write.write.task_id)
        known = self._find_keys([w.idempotency.key for w in writes if isinstance(w, Submit) and w.idempotency])
        for write in writes:
            match write:
                case Save(changes=changes, first_event_id=first_event_id):
                    self._add(changes, first_event_id)
                case AppendLog(chunk=chunk):
                    self._logs.append(self._connection, chunk)
                case Submit():
                    self._submit(write, known)
                case SaveWorker():
                    self._workers[write.worker_id] = write
                case SaveDrain():
                    self._save_drain(write)
                case Undo(write=SaveDrain() as undone):
                    self._set_drain(undone.worker_id, undone.previous)
                case Undo():
                    pass
                case _:
                    raise TypeError(f"a {type(write).__name__} is no known write")
        self._flush()

    def _find_keys(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """By idempotency key, the digest and the id of the task that has it."""
        if not keys:
            return {}
        columns = (tasks.c.idempotency_key, tasks.c.idempotency_digest, tasks.c.task_id)
        found = self._connection.execute(select(*columns).where(tasks.c.idempotency_key.in_(keys)))
        return {key: (digest, task_id) for key, digest, task_id in found}

    def _submit(self, write: Submit, known: dict[str, tuple[str, str]]) -> None:
        write.outcome = write.task_id
        if write.idempotency is not None:
            key, digest = write.idempotency
            stored, write.outcome = known.setdefault(key, (self._encryptor.digest(digest), write.task_id))
            if not self._encryptor.matches_digest(stored, digest):
                write.outcome = IdempotencyConflict(f"the idempotency key {key!r} was used for another request")
            elif write.outcome == write.task_id:
                self._keys[write.task_id] = write.idempotency
        if write.outcome == write.task_id:
            self._add(write.changes, write.first_event_id)

    def _add(self, changes: Changes, first_event_id: int) -> None:
        self._tasks.update((task.task_id, task) for task in changes.tasks)
        self._attempts.update(((attempt.task_id, attempt.attempt), attempt) for attempt in changes.attempts)
        self._events += [rows.event_row(event, first_event_id + n) for n, event in enumerate(changes.events)]

    def _save_drain(self, write: SaveDrain) -> None:
        if not write.previous_known:
            columns = (workers.c.worker_id, workers.c.drain_reason, workers.c.drained_since)
            found = self._connection.execute(select(*columns).where(workers.c.worker_id == write.worker_id)).first()
            write.previous = Drain(*found) if found is not None and found.drained_since is not None else None
            write.previous_known = True
        self._set_drain(write.worker_id, write.drain)

    def _set_drain(self, worker_id: str, drain: Drain | None) -> None:
        row: rows.Row = {
            "worker_id": worker_id,
            "hostname": "",
            "labels": {},
            "drain_reason": drain.reason if drain else None,
            "drained_since": drain.since if drain else None,
        }
        upsert(self._connection, workers, [row], ("worker_id",), ("drain_reason", "drained_since"))

    def _delete(self, task_id: str) -> None:
        self._connection.execute(delete(tasks).where(tasks.c.task_id == task_id))
        self._connection.execute(delete(events).where(events.c.task_id == task_id))

    def _flush(self) -> None:
        worker_ids = {key: attempt.worker_id for key, attempt in self._attempts.items()}
        task_rows = [
            rows.task_row(task, self._keys.get(task_id), worker_ids.get((task_id, task.attempt)), self._encryptor)
            for task_id, task in self._tasks.items()
        ]
        upsert(self._connection, tasks, task_rows, ("task_id",), rows.TASK_CHANGES, keep_if_null=("worker_id",))
        attempt_rows = [rows.attempt_row(attempt) for attempt in self._attempts.values()]
        upsert(self._connection, attempts, attempt_rows, ("task_id", "attempt"), rows.ATTEMPT_CHANGES)
        self._set_workers(attempt for attempt in self._attempts.values() if attempt.task_id not in self._tasks)
        upsert(self._connection, events, self._events, ("event_id",))
        worker_rows = [
            {"worker_id": w.worker_id, "hostname": w.hostname, "labels": dict(w.labels), "seen_at": w.seen_at}
            for w in self._workers.values()
        ]
        upsert(self._connection, workers, worker_rows, ("worker_id",), ("hostname", "labels", "seen_at"))
        self._logs.flush(self._connection)

    def _set_workers(self, without_task: Iterable[Attempt]) -> None:
        """Sets ``tasks.worker_id`` for attempts that came without their task."""
        for attempt in without_task:
            is_newest = (tasks.c.task_id == attempt.task_id) & (tasks.c.attempt == attempt.attempt)
            self._connection.execute(update(tasks).where(is_newest).values(worker_id=attempt.worker_id))


class Retention(NamedTuple):
    """How long logs and tasks are kept after the end of the task. Logs go with their task at the latest."""

    log_seconds: float = 7 * DAY_SECONDS
    task_seconds: float = 90 * DAY_SECONDS


def prune_step(connection: Connection, retention: Retention, now: float) -> bool:
    """Removes some old logs, whose lengths stay with their attempts, so that readers learn that they have expired; or,
    without old logs, some old tasks. Returns ``False`` when nothing was old enough."""
    log_seconds = min(retention.log_seconds, retention.task_seconds)
    with_logs = _ended_before(connection, now - log_seconds, logs_pruned=False)
    if with_logs:
        _prune_logs(connection, with_logs)
        return True
    too_old = _ended_before(connection, now - retention.task_seconds, logs_pruned=True)
    for table in (tasks, attempts, events, log_chunks) if too_old else ():
        connection.execute(delete(table).where(table.c.task_id.in_(too_old)))
    return bool(too_old)


def _ended_before(connection: Connection, time: float, *, logs_pruned: bool) -> list[str]:
    ended = select(tasks.c.task_id).where(tasks.c.logs_pruned.is_(logs_pruned), tasks.c.finished_at < time)
    return list(connection.scalars(ended.order_by(tasks.c.finished_at).limit(STEP_TASKS)))


def _prune_logs(connection: Connection, task_ids: list[str]) -> None:
    _mark_expired(connection, task_ids)
    rows_left, bytes_left = STEP_ROWS, STEP_BYTES
    done = []
    for task_id in task_ids:
        removed_rows, removed_bytes, is_done = _remove_chunks(connection, task_id, rows_left, bytes_left)
        rows_left, bytes_left = rows_left - removed_rows, bytes_left - removed_bytes
        if is_done:
            done.append(task_id)
        if rows_left <= 0 or bytes_left <= 0:
            break
    connection.execute(update(tasks).where(tasks.c.task_id.in_(done)).values(logs_pruned=True))


def _mark_expired(connection: Connection, task_ids: list[str]) -> None:
    """From here on every reader sees that these logs have expired."""
    end = (
        select(func.max(log_chunks.c.end_offset))
        .where(and_(log_chunks.c.task_id == attempts.c.task_id, log_chunks.c.attempt == attempts.c.attempt))
        .scalar_subquery()
    )
    unmarked = and_(attempts.c.task_id.in_(task_ids), attempts.c.log_expired_bytes.is_(None))
    connection.execute(update(attempts).where(unmarked).values(log_expired_bytes=end))


def _remove_chunks(connection: Connection, task_id: str, max_rows: int, max_bytes: int) -> tuple[int, int, bool]:
    """Returns how many rows and bytes were removed, and whether that was all."""
    key = (log_chunks.c.attempt, log_chunks.c.start_offset)
    found = connection.execute(
        select(*key, log_chunks.c.end_offset).where(log_chunks.c.task_id == task_id).order_by(*key).limit(max_rows + 1)
    ).all()
    removed_rows = removed_bytes = 0
    for attempt, start, end in found[:max_rows]:
        if removed_bytes >= max_bytes:
            break
        where = (log_chunks.c.task_id == task_id, log_chunks.c.attempt == attempt, log_chunks.c.start_offset == start)
        connection.execute(delete(log_chunks).where(*where))
        removed_rows, removed_bytes = removed_rows + 1, removed_bytes + end - start
    return removed_rows, removed_bytes, removed_rows == len(found)
