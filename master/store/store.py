"""The store as the task service sees it: ``master.tasks.ports.TaskStore`` on SQLite or PostgreSQL."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.mailbox import HubQueue
from fleetpulse.master.store import reading
from fleetpulse.master.store.answer import Answer
from fleetpulse.master.store.engines import open_engines
from fleetpulse.master.store.history_store import SqlHistoryStore
from fleetpulse.master.store.observer import StoreObserver
from fleetpulse.master.store.opening import Opening
from fleetpulse.master.store.pruning import Retention
from fleetpulse.master.store.readers import Readers
from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.url import parse_database_url
from fleetpulse.master.store.writer import Writer
from fleetpulse.master.store.writes import AppendLog, NoteWorker, Save, SaveDrain, Submit, WaitedWrite
from fleetpulse.master.tasks.ports import (
    Changes,
    Idempotency,
    LiveTask,
    LogSlice,
    OnSaved,
    TaskDetails,
    TaskPage,
    TaskQuery,
)
from fleetpulse.master.tasks.records import Attempt, Drain, LogChunk, Task, TaskStatus

Found = TypeVar("Found")

_READERS = 2
_READ_SECONDS = 10.0
_LOAD_SECONDS = 120.0
_CLOSE_SECONDS = 5.0


class SqlTaskStore:
    """Made, started, used and stopped on the gevent hub, after any fork. Raises ``ConfigError`` for a bad URL.

    ``patience_seconds`` is how long ``start`` tries to reach the database or to be the only master on it, and
    ``write_seconds`` how long a submit waits for a database that cannot be written; twice that, when it is being tried.
    """

    def __init__(
        self,
        database_url: str,
        seal: Encryptor,
        *,
        retention: Retention = Retention(),  # noqa: B008 - immutable
        observer: StoreObserver = StoreObserver(),  # noqa: B008 - immutable
        patience_seconds: float = 10.0,
        write_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        database = parse_database_url(database_url)
        self.location = str(database)
        """Where the tasks are, fit for a log."""

        self._engines = engines = open_engines(database, _READERS)
        opening = Opening(database, engines, seal, patience_seconds, self._on_taken_over)
        self._taken_over = observer.taken_over
        self._is_stopped = False
        self._seal = seal
        self._write_seconds = write_seconds
        self._next_event_id = 0
        self._mailbox = HubQueue("store")
        self._readers = Readers(engines.reader, self._mailbox, _READERS)
        self._writer = Writer(
            engines.writer, self._mailbox, opening.open, opening.close, retention, observer, clock, seal
        )  # fmt: skip
        self.history = SqlHistoryStore(self._writer, self._readers)
        """The same database, for the history of telemetry."""

    def start(self) -> None:
        """Wait until the database is open and its tables are as this version needs them.

        Raise ``ConfigError`` or ``StoreUnavailable``; the store is stopped then.
        """
        self._writer.start()
        try:
            last_event_id = self._writer.opened.result()
        except BaseException:
            self._writer.ended.wait(_CLOSE_SECONDS)
            self._mailbox.close(make_calls=True)
            raise
        # Larger than any that is there, even when the wall clock was set back.
        self._next_event_id = max(last_event_id + 1, time.time_ns())
        self._readers.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Write what waits, for as long as that; then end the threads. What is handed over later is lost."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._writer.queue.close(time.monotonic() + timeout_seconds)
        self._readers.stop(1.0)
        if self._writer.ended.wait(timeout_seconds + 1.0):
            # Nothing is left of them, unless somebody has read after the writer gave up.
            self._engines.close()
        else:
            for write in self._writer.queue.abort():
                write.answer.error(StoreUnavailable("the store was closed while the database did not answer"))()
        self._mailbox.close(make_calls=True)

    def submit(self, changes: Changes, idempotency: Idempotency | None) -> str:
        """``changes`` has exactly one new task. See ``TaskStore``."""
        (task,) = changes.tasks
        write = Submit(Answer(), changes, self._event_ids(changes), idempotency, task.task_id)
        task_id: str = self._written(write)
        return task_id

    def save(self, changes: Changes, on_saved: OnSaved | None = None) -> None:
        """See ``TaskStore``."""
        self._writer.queue.put(Save(changes, self._event_ids(changes), on_saved))

    def append_log(self, chunk: LogChunk, on_saved: OnSaved) -> None:
        """See ``TaskStore``."""
        self._writer.queue.put(AppendLog(chunk, on_saved))

    def save_worker(self, worker_id: str, hostname: str, labels: Mapping[str, str], seen_at: float) -> None:
        """See ``TaskStore``."""
        self._writer.queue.put(NoteWorker(worker_id, hostname, labels, seen_at))

    def save_drain(self, worker_id: str, drain: Drain | None) -> None:
        """See ``TaskStore``."""
        self._written(SaveDrain(Answer(), worker_id, drain))

    def load_live(self) -> Sequence[LiveTask]:
        """See ``TaskStore``. The attempt is ``None`` unless it is live too."""
        return self._readers.ask(lambda connection: reading.load_live(connection, self._seal), _LOAD_SECONDS)

    def count_by_status(self) -> Mapping[TaskStatus, int]:
        """See ``TaskStore``."""
        return self._ask(reading.count_by_status)

    def find(self, query: TaskQuery) -> TaskPage:
        """See ``TaskStore``. ``worker_id`` is that of a task's newest attempt."""
        return self._ask(reading.find, query)

    def details(self, task_id: str) -> TaskDetails:
        """See ``TaskStore``."""
        return self._ask(reading.details, task_id)

    def worker_attempts(self, worker_id: str, limit: int) -> Sequence[tuple[Attempt, Task]]:
        """See ``TaskStore``."""
        return self._ask(reading.worker_attempts, worker_id, limit)

    def assigned_to(self, task_id: str, attempt: int) -> str | None:
        """See ``TaskStore``."""
        return self._ask(reading.assigned_to, task_id, attempt)

    def read_log(self, task_id: str, attempt: int, offset: int, limit: int) -> LogSlice:
        """See ``TaskStore``. An attempt that is not there has an empty log."""
        return self._ask(reading.read_log, task_id, attempt, offset, limit)

    def drains(self) -> Sequence[Drain]:
        """See ``TaskStore``."""
        return self._ask(reading.drains)

    def knows_worker(self, worker_id: str) -> bool:
        """Wait for whether a worker was ever noted or drained."""
        return self._ask(reading.knows_worker, worker_id)

    def health_error(self) -> str | None:
        """See ``TaskStore``. Does not wait."""
        return self._writer.health_error()

    def _on_taken_over(self, why: str) -> None:
        """Called by the writer's thread."""
        self._writer.give_up(why)
        self._taken_over()

    def _ask(self, question: Callable[..., Found], *args: Any) -> Found:
        def ask(connection: Connection) -> Found:
            return question(connection, *args)

        return self._readers.ask(ask, _READ_SECONDS)

    def _event_ids(self, changes: Changes) -> int:
        first = self._next_event_id
        self._next_event_id += len(changes.events)
        return first

    def _written(self, write: WaitedWrite) -> Any:
        """Wait until it is durable. However else this ends, it is not written, or taken back."""
        if not self._writer.queue.put(write):
            raise StoreUnavailable(self.health_error() or "the store is closed")
        try:
            is_decided = self._wait(write)
        except BaseException:  # the greenlet was killed as it waited
            self._writer.queue.abandon(write)
            raise
        if not is_decided:
            why = self.health_error() or f"nothing was written within {self._write_seconds:g} s"
            raise StoreUnavailable(why)
        return write.answer.result()

    def _wait(self, write: WaitedWrite) -> bool:
        """``False``: patience is over, and nothing is written or will be left of it."""
        queue = self._writer.queue
        if write.answer.wait(self._write_seconds):
            return True
        if queue.give_up_soon(write):
            return False
        return write.answer.wait(self._write_seconds) or not queue.abandon(write)
