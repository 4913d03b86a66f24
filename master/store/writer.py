"""The one thread that writes: commits everything that waits as one transaction, and tells the hub.

An outage of the database loses nothing: the writer keeps the order and tries again, ever less often.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from gevent.event import AsyncResult
from sqlalchemy import select

from fleetpulse.master.errors import FleetPulseError, StoreUnavailable
from fleetpulse.master.history.recorder import WriteResult
from fleetpulse.master.hub_queue import Call, HubQueue
from fleetpulse.master.instruments import StoreInstruments
from fleetpulse.master.store.batch import Batch, Retention, prune_step
from fleetpulse.master.store.database import Engines, error_kind, error_message, is_row_error
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.history import HistoryJob, write_batch
from fleetpulse.master.store.logs import LogWriter
from fleetpulse.master.store.schema import DatabaseOpener
from fleetpulse.master.store.writes import AppendLog, Save, WaitedWrite, Write, WriteQueue

_LOGGER = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STUCK_SECONDS = 10.0
_PRUNE_PAUSE_SECONDS = 0.05
_PRUNE_IDLE_SECONDS = 60.0


class Writer:
    """Created on the hub. Its thread opens the database first and closes it last.

    ``opened`` answers with the largest id of a stored event, or with the error; ``ended`` when the thread is done.
    """

    def __init__(
        self,
        engines: Engines,
        encryptor: Encryptor,
        hub_queue: HubQueue,
        metrics: StoreInstruments,
        retention: Retention,
        on_replaced: Callable[[], None],
        open_timeout_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.queue = WriteQueue()
        self.opened: AsyncResult[int] = AsyncResult()
        self.ended: AsyncResult[None] = AsyncResult()
        self._opener = DatabaseOpener(engines, encryptor, open_timeout_seconds, self._on_replaced)
        self._engine, self._encryptor, self._hub_queue = engines.writer, encryptor, hub_queue
        self._retention, self._metrics, self._clock = retention, metrics, clock
        self._tell_replaced = on_replaced
        self._logs = LogWriter()
        self._closed_reason = "is not open"
        self._outage: tuple[float, str] | None = None
        self._trying_since: float | None = None
        self._pause = 0.0
        self._prune_at = 0.0
        self._history: HistoryJob | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put_history(self, job: HistoryJob) -> None:
        """For any thread, one at a time. It is written when nothing else waits, or when it is overdue."""
        self._history = job
        self.queue.wake()

    def health_error(self) -> str | None:
        """For any thread."""
        now = time.monotonic()
        if self._closed_reason:
            return f"the store {self._closed_reason}"
        if (outage := self._outage) is not None:
            return f"nothing can be written for {now - outage[0]:.0f} s: {outage[1]}"
        if (since := self._trying_since) is not None and now - since > _STUCK_SECONDS:
            return f"the database has not answered a write for {now - since:.0f} s"
        return None

    def _on_replaced(self, reason: str) -> None:
        self._closed_reason = f"is closed: {reason}"
        self.queue.close(time.monotonic())
        self._tell_replaced()

    def _run(self) -> None:
        try:
            try:
                self._hub_queue.post([partial(self.opened.set, self._opener.open())])
            except Exception as error:  # noqa: BLE001 - raised to whoever opens the store
                self._hub_queue.post([partial(self.opened.set_exception, error)])
                return
            self._closed_reason = ""
            self._write_all()
        except Exception:
            _LOGGER.exception("the writer of the store has died")
            self._closed_reason = "has failed; see the log of the master"
        finally:
            self._closed_reason = self._closed_reason or "is closed"
            self._end()

    def _write_all(self) -> None:
        while True:
            in_outage = self._outage is not None
            writes = self.queue.take(self._pause if in_outage else max(self._prune_at - time.monotonic(), 0.0))
            if writes is None:
                return
            if writes:
                self._try(writes)
            elif in_outage and not self.queue.has_waiting:
                self._probe()
            if (job := self._history) is not None and (job.is_overdue or not self.queue.has_waiting):
                self._history = None
                self._write_history(job)
            if self._outage is None and time.monotonic() >= self._prune_at:
                self._prune()

    def _try(self, writes: Sequence[Write]) -> None:
        self._trying_since = started = time.monotonic()
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                Batch(connection, self._logs, self._encryptor).write(writes)
                for write in writes:
                    write.maybe_written = True
                transaction.commit()
        except Exception as error:  # noqa: BLE001 - sorted by cause in _fail
            self._logs.roll_back()
            self._metrics.errors.labels(error_kind(error)).inc()
            self._fail(writes, error)
        else:
            self._end_outage()
            self._metrics.commit.observe(time.monotonic() - started)
            self._hub_queue.post(_calls_after(self.queue.commit()))
        finally:
            self._trying_since = None

    def _fail(self, writes: Sequence[Write], error: Exception) -> None:
        if not is_row_error(error):
            self._begin_outage(error_message(error))
            self._refuse(self.queue.postpone(self._pause), self._unavailable())
        elif len(writes) > 1:
            self.queue.retry_singly()
        else:
            # Not as exc_info: the error may quote the row, and with it the secrets in a task's environment.
            stack = "".join(traceback.format_tb(error.__traceback__))
            message, kind = error_message(error), type(writes[0]).__name__
            _LOGGER.error("a %s cannot be written and is lost: a bug: %s\n%s", kind, message, stack)
            self.queue.discard()
            self._refuse(writes, RuntimeError(f"the database refused it: {message}"))

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(self.health_error() or "the store did not answer in time")

    def _refuse(self, writes: Sequence[Write], error: Exception) -> None:
        self._hub_queue.post([partial(w.answer.set_exception, error) for w in writes if isinstance(w, WaitedWrite)])

    def _begin_outage(self, reason: str) -> None:
        self._pause = min(self._pause * 2 or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        if self._outage is None:
            _LOGGER.error("the database cannot be written, trying again until it can: %s", reason)
        self._outage = (self._outage[0] if self._outage is not None else time.monotonic(), reason)

    def _end_outage(self) -> None:
        self._pause = 0.0
        if self._outage is not None:
            _LOGGER.warning("the database can be written again, after %.1f s", time.monotonic() - self._outage[0])
            self._outage = None

    def _probe(self) -> None:
        """Checks whether the outage is over when no write waits that would show it."""
        try:
            with self._engine.begin() as connection:
                connection.execute(select(1))
        except Exception as error:  # noqa: BLE001 - the outage goes on
            self._begin_outage(error_message(error))
        else:
            self._end_outage()

    def _write_history(self, job: HistoryJob) -> None:
        """Tries once: the recorder keeps the batch and hands it over again."""
        result = WriteResult(self._outage[1] if self._outage is not None else "")
        if self._outage is None:
            self._trying_since = time.monotonic()
            try:
                result = write_batch(self._engine, job.batch)
            except Exception as error:  # noqa: BLE001 - reported to the recorder
                self._metrics.errors.labels(error_kind(error)).inc()
                result = WriteResult(error_message(error))
            finally:
                self._trying_since = None
        self._hub_queue.post([partial(job.on_done, result)])

    def _prune(self) -> None:
        pause = _PRUNE_IDLE_SECONDS
        try:
            with self._engine.begin() as connection:
                if prune_step(connection, self._retention, self._clock()):
                    pause = _PRUNE_PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - tried again later; writes go on
            _LOGGER.warning("what is too old could not be removed: %s", error_message(error))
        self._prune_at = time.monotonic() + pause

    def _end(self) -> None:
        lost = self.queue.clear()
        if lost:
            _LOGGER.error("the store is closed with %d writes that could not be made", len(lost))
        self._refuse(lost, self._unavailable())
        try:
            self._opener.close()
        finally:
            self._hub_queue.post([self.ended.set])


def _calls_after(writes: Sequence[Write]) -> list[Call]:
    """Returns what the hub has to do now that these are durable."""
    calls: list[Call] = []
    for write in writes:
        if isinstance(write, WaitedWrite):
            outcome = write.outcome
            is_error = isinstance(outcome, FleetPulseError)
            calls.append(partial(write.answer.set_exception if is_error else write.answer.set, outcome))
        elif isinstance(write, Save | AppendLog) and write.on_saved is not None:
            calls.append(write.on_saved)
    return calls
