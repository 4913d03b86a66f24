"""Many writes as few statements, in the caller's transaction. Called by the writer's thread.

Of a task or an attempt that comes several times in a batch only the last row is written.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, select, update

from fleetpulse.master.errors import IdempotencyConflict
from fleetpulse.master.store import rows
from fleetpulse.master.store.logs import LogWriter
from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.tables import attempts, events, tasks, workers
from fleetpulse.master.store.upsert import insert_or_change, insert_or_keep
from fleetpulse.master.store.writes import AppendLog, EraseTask, NoteWorker, Save, SaveDrain, SetDrain, Submit, Write
from fleetpulse.master.tasks.ports import Changes, Idempotency
from fleetpulse.master.tasks.records import Attempt, Drain, Task

_WORKER_DEFAULTS = {"hostname": "", "labels": {}}


class Batch:
    """Made for one transaction: ``add`` in order, then ``flush``."""

    def __init__(self, connection: Connection, logs: LogWriter, seal: Encryptor) -> None:
        self._connection = connection
        self._logs = logs
        self._seal = seal
        self._tasks: dict[str, Task] = {}
        self._keys: dict[str, Idempotency] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._events: list[rows.Row] = []
        self._noted: dict[str, NoteWorker] = {}

    def write(self, writes: Sequence[Write]) -> None:
        """Write all of them, and set the outcome of those that are waited for."""
        for write in writes:  # what is taken back leaves its idempotency key to those that follow
            if isinstance(write, EraseTask):
                self._erase(write.task_id)
        known = self._known_keys([w.idempotency.key for w in writes if isinstance(w, Submit) and w.idempotency])
        for write in writes:
            match write:
                case Save(changes=changes, event_ids=event_ids):
                    self._add(changes, event_ids)
                case AppendLog(chunk=chunk):
                    self._logs.append(self._connection, chunk)
                case Submit():
                    self._submit(write, known)
                case NoteWorker():
                    self._noted[write.worker_id] = write
                case SaveDrain():
                    self._save_drain(write)
                case SetDrain():
                    self._set_drain(write.worker_id, write.drain)
                case EraseTask():
                    pass
                case _:
                    raise TypeError(f"nobody knows how to write a {type(write).__name__}")
        self._flush()

    def _known_keys(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
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
            known_digest, write.outcome = known.setdefault(key, (self._seal.digest(digest), write.task_id))
            if not self._seal.is_digest(known_digest, digest):
                write.outcome = IdempotencyConflict(f"the idempotency key {key!r} was used for another request")
            elif write.outcome == write.task_id:
                self._keys[write.task_id] = write.idempotency
        if write.outcome == write.task_id:
            self._add(write.changes, write.event_ids)

    def _add(self, changes: Changes, event_ids: int) -> None:
        self._tasks.update((task.task_id, task) for task in changes.tasks)
        self._attempts.update(((attempt.task_id, attempt.attempt), attempt) for attempt in changes.attempts)
        self._events += [rows.event_row(event, event_ids + n) for n, event in enumerate(changes.events)]

    def _save_drain(self, write: SaveDrain) -> None:
        if not write.previous_is_known:
            columns = (workers.c.worker_id, workers.c.drain_reason, workers.c.drained_since)
            found = self._connection.execute(select(*columns).where(workers.c.worker_id == write.worker_id)).first()
            write.previous = Drain(*found) if found is not None and found.drained_since is not None else None
            write.previous_is_known = True
        self._set_drain(write.worker_id, write.drain)

    def _set_drain(self, worker_id: str, drain: Drain | None) -> None:
        row = {
            "worker_id": worker_id,
            **_WORKER_DEFAULTS,
            "drain_reason": drain.reason if drain else None,
            "drained_since": drain.since if drain else None,
        }
        insert_or_change(self._connection, workers, [row], ("worker_id",), ("drain_reason", "drained_since"))

    def _erase(self, task_id: str) -> None:
        self._connection.execute(delete(tasks).where(tasks.c.task_id == task_id))
        self._connection.execute(delete(events).where(events.c.task_id == task_id))

    def _flush(self) -> None:
        worker_ids = {attempt: row.worker_id for attempt, row in self._attempts.items()}
        task_rows = [
            rows.task_row(task, self._keys.get(task_id), worker_ids.get((task_id, task.attempt)), self._seal)
            for task_id, task in self._tasks.items()
        ]
        insert_or_change(
            self._connection, tasks, task_rows, ("task_id",), rows.TASK_CHANGES, keep_if_null=("worker_id",)
        )
        attempt_rows = [rows.attempt_row(attempt) for attempt in self._attempts.values()]
        insert_or_change(self._connection, attempts, attempt_rows, ("task_id", "attempt"), rows.ATTEMPT_CHANGES)
        self._link(attempt for attempt in self._attempts.values() if attempt.task_id not in self._tasks)
        insert_or_keep(self._connection, events, self._events, ("event_id",))
        noted = [
            {"worker_id": w.worker_id, "hostname": w.hostname, "labels": dict(w.labels), "seen_at": w.seen_at}
            for w in self._noted.values()
        ]
        insert_or_change(self._connection, workers, noted, ("worker_id",), ("hostname", "labels", "seen_at"))
        self._logs.flush(self._connection)

    def _link(self, alone: Iterable[Attempt]) -> None:
        """Tell the task of an attempt that came without it which worker that is on."""
        for attempt in alone:
            is_newest = (tasks.c.task_id == attempt.task_id) & (tasks.c.attempt == attempt.attempt)
            self._connection.execute(update(tasks).where(is_newest).values(worker_id=attempt.worker_id))
