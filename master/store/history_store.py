"""The store as the history sees it: ``master.history.ports.HistoryStore`` on SQLite or PostgreSQL."""

import time
from collections.abc import Callable, Mapping, Sequence

from gevent.lock import BoundedSemaphore
from sqlalchemy import Connection

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.history.fields import INDEX_BY_NAME
from fleetpulse.master.history.points import Points
from fleetpulse.master.history.ports import HistoryBatch, RecoveredState, Written
from fleetpulse.master.history.window import Series, Window, laid_out
from fleetpulse.master.store import history
from fleetpulse.master.store.history import HistoryJob
from fleetpulse.master.store.readers import Readers
from fleetpulse.master.store.writer import Writer

_READ_SECONDS = 10.0
_RECOVER_SECONDS = 120.0


class SqlHistoryStore:
    """Built by ``SqlTaskStore``, with its threads. One read at a time, so that those of tasks always find a thread."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer, self._readers = writer, readers
        self._turn = BoundedSemaphore()

    def save(self, batch: HistoryBatch, on_done: Callable[[Written], None]) -> None:
        """See ``HistoryStore``."""
        self._writer.put_history(HistoryJob(batch, on_done, time.monotonic()))

    def recover(self, steps: Sequence[int]) -> Mapping[str, Mapping[int, RecoveredState]]:
        """See ``HistoryStore``."""
        return self._readers.ask(lambda connection: history.recover(connection, steps), _RECOVER_SECONDS)

    def read(
        self, worker_id: str, step: int, window: Window, fields: Sequence[str], recent: Sequence[Points]
    ) -> Mapping[str, Series]:
        """See ``HistoryStore``. Laid out by the reader's thread, too."""
        columns = [INDEX_BY_NAME[field] for field in fields]

        def read(connection: Connection) -> Mapping[str, Series]:
            stored = history.stored_points(connection, worker_id, step, window.start, window.stop)
            return dict(zip(fields, laid_out(window, [*stored, *recent], columns), strict=True))

        if not self._turn.acquire(timeout=_READ_SECONDS):
            raise StoreUnavailable(f"others have read history for {_READ_SECONDS:g} s")
        try:
            return self._readers.ask(read, _READ_SECONDS)
        finally:
            self._turn.release()

    def has_worker(self, worker_id: str) -> bool:
        """See ``HistoryStore``."""
        return self._readers.ask(lambda connection: history.has_worker(connection, worker_id), _READ_SECONDS)
