"""``master.tasks.records.TaskStore`` on SQLite or PostgreSQL."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.hub_queue import HubQueue
from fleetpulse.master.instruments import StoreInstruments
from fleetpulse.master.store import reads
from fleetpulse.master.store.batch import Retention
from fleetpulse.master.store.database import open_engines, parse_database_url
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.history import SqlHistoryStore
from fleetpulse.master.store.writer import Writer
from fleetpulse.master.store.writes import AppendLog, Save, SaveDrain, SaveWorker, Submit, WaitedWrite
from fleetpulse.master.tasks.records import Changes, Drain, Idempotency, LiveTask, LogChunk, OnSaved

_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")

_READERS = 2
_READ_SECONDS = 10.0
_LOAD_SECONDS = 120.0
_CLOSE_SECONDS = 5.0


def _read(
    query: Callable[Concatenate[Connection, _Arguments], _Found],
) -> Callable[Concatenate["SqlTaskStore", _Arguments], _Found]:
    """Makes a method of a query: it waits for the result from a reader's thread."""

    def read(self: "SqlTaskStore", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Found:
        return self._readers.run(lambda connection: query(connection, *args, **kwargs), _READ_SECONDS)

    return read


class SqlTaskStore:
    """Created, started, used and stopped on the gevent hub, after any fork. Raises ``ConfigError`` for a bad URL.

    ``start`` waits ``open_timeout_seconds`` for the database, and to be the only master on it. A submit waits
    ``write_timeout_seconds`` for a database that cannot be written; twice that while a try is under way.

    ``on_replaced`` is called by the writer's thread when another master has opened the database: nothing can be written
    any more, and what is in memory is outdated.
    """

    def __init__(
        self,
        database_url: str,
        encryptor: Encryptor,
        metrics: StoreInstruments,
        *,
        retention: Retention = Retention(),  # noqa: B008 - immutable
        on_replaced: Callable[[], None] = lambda: None,
        open_timeout_seconds: float = 10.0,
        write_timeout_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engines = open_engines(parse_database_url(database_url), _READERS)
        self.location = str(self._engines.url)
        """For logs."""

        self._is_stopped = False
        self._encryptor = encryptor
        self._write_timeout_seconds = write_timeout_seconds
        self._next_event_id = 0
        self._hub_queue = HubQueue("store")
        self._readers = reads.Readers(self._engines.reader, _READERS)
        self._writer = Writer(
            self._engines, encryptor, self._hub_queue, metrics, retention, on_replaced, open_timeout_seconds, clock
        )
        self.history = SqlHistoryStore(self._writer.put_history, self._readers)

    def start(self) -> None:
        """Waits until the database is open and migrated. Raises ``ConfigError`` or ``StoreUnavailable``; the store is
        stopped then."""
        self._writer.start()
        try:
            last_event_id = self._writer.opened.get() or 0
        except BaseException:
            self._writer.ended.wait(_CLOSE_SECONDS)
            self._hub_queue.close(make_calls=True)
            raise
        # Larger than any stored id, even when the wall clock was set back.
        self._next_event_id = max(last_event_id + 1, time.time_ns())
        self._readers.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Writes what waits, for that long, and ends the threads. Later writes are lost."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._writer.queue.close(time.monotonic() + timeout_seconds)
        self._readers.stop(1.0)
        self._writer.ended.wait(timeout_seconds + 1.0)
        if self._writer.ended.ready():
            # The writer closed the engines; a reader may have connected again since.
            self._engines.close()
        else:
            for write in self._writer.queue.clear():
                if isinstance(write, WaitedWrite):
                    write.answer.set_exception(
                        StoreUnavailable("the store was closed while the database did not answer")
                    )
        self._hub_queue.close(make_calls=True)

    # See ``TaskStore`` for the methods below.

    def submit(self, changes: Changes, idempotency: Idempotency | None) -> str:
        (task,) = changes.tasks
        task_id: str = self._wait(Submit(changes, self._event_ids(changes), idempotency, task.task_id))
        return task_id

    def save(self, changes: Changes, on_saved: OnSaved | None = None) -> None:
        self._writer.queue.put(Save(changes, self._event_ids(changes), on_saved))

    def append_log(self, chunk: LogChunk, on_saved: OnSaved) -> None:
        self._writer.queue.put(AppendLog(chunk, on_saved))

    def save_worker(self, worker_id: str, hostname: str, labels: Mapping[str, str], seen_at: float) -> None:
        self._writer.queue.put(SaveWorker(worker_id, hostname, labels, seen_at))

    def save_drain(self, worker_id: str, drain: Drain | None) -> None:
        self._wait(SaveDrain(worker_id, drain))

    def load_live(self) -> Sequence[LiveTask]:
        return self._readers.run(lambda connection: reads.load_live(connection, self._encryptor), _LOAD_SECONDS)

    def submitted_with(self, idempotency: Idempotency) -> str | None:
        return self._readers.run(lambda c: reads.submitted_with(c, self._encryptor, idempotency), _READ_SECONDS)

    count_by_status = _read(reads.count_by_status)
    find = _read(reads.find)
    details = _read(reads.details)
    worker_attempts = _read(reads.worker_attempts)
    assigned_to = _read(reads.assigned_to)
    read_log = _read(reads.read_log)
    drains = _read(reads.drains)
    knows_worker = _read(reads.knows_worker)

    def health_error(self) -> str | None:
        return self._writer.health_error()

    def _event_ids(self, changes: Changes) -> int:
        first = self._next_event_id
        self._next_event_id += len(changes.events)
        return first

    def _wait(self, write: WaitedWrite) -> Any:
        """Waits until the write is durable. When it raises, nothing is written, or it is undone."""
        queue = self._writer.queue
        if not queue.put(write):
            raise StoreUnavailable(self.health_error() or "the store is closed")
        answer = write.answer
        try:
            answer.wait(self._write_timeout_seconds)
            gave_up = not answer.ready() and queue.cancel_retries(write)
            if not answer.ready() and not gave_up:
                answer.wait(self._write_timeout_seconds)
                gave_up = not answer.ready() and queue.abandon(write)
        except BaseException:  # the greenlet was killed
            queue.abandon(write)
            raise
        if gave_up:
            reason = self.health_error() or f"nothing was written within {self._write_timeout_seconds:g} s"
            raise StoreUnavailable(reason)
        return answer.get()
