"""The one thread that writes: takes everything that waits, commits it as one transaction, and says so to the hub.

Nothing is given up for an outage of the database: the writer keeps the order and tries again, ever less often.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, select

from fleetpulse.master.errors import FleetPulseError, StoreUnavailable
from fleetpulse.master.history.ports import Written
from fleetpulse.master.mailbox import HubQueue
from fleetpulse.master.store.answer import Answer, Call
from fleetpulse.master.store.batch import Batch
from fleetpulse.master.store.failures import blames_row, in_words, kind_of
from fleetpulse.master.store.history import HistoryJob, write_batch
from fleetpulse.master.store.logs import LogWriter
from fleetpulse.master.store.observer import StoreObserver
from fleetpulse.master.store.pruning import Retention, prune_step
from fleetpulse.master.store.queue import WriteQueue
from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.writes import AppendLog, Save, WaitedWrite, Write

_LOGGER = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STUCK_SECONDS = 10.0
_PRUNE_PAUSE_SECONDS = 0.05
_PRUNE_IDLE_SECONDS = 60.0


class Writer:
    """Made on the hub. ``prepare`` is run by the thread before anything else; its result answers ``opened``, and
    ``release`` is the last thing that the thread does."""

    def __init__(
        self,
        engine: Engine,
        mailbox: HubQueue,
        prepare: Callable[[], int],
        release: Callable[[], None],
        retention: Retention,
        observer: StoreObserver,
        clock: Callable[[], float],
        seal: Encryptor,
    ) -> None:
        self.queue = WriteQueue()
        self.opened, self.ended = Answer(), Answer()
        self._engine, self._mailbox = engine, mailbox
        self._prepare, self._release = prepare, release
        self._retention, self._observer, self._clock = retention, observer, clock
        self._seal = seal
        self._logs = LogWriter()
        self._state = "is not open"
        self._outage: tuple[float, str] | None = None
        self._trying_since: float | None = None
        self._pause = 0.0
        self._prune_at = 0.0
        self._history: HistoryJob | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def give_up(self, why: str) -> None:
        """Called by the thread itself: another master has the database, so it ends, and says so to all who wait."""
        self._state = f"is closed: {why}"
        self.queue.close(time.monotonic())

    def put_history(self, job: HistoryJob) -> None:
        """For any thread, one at a time. Written when nothing else waits, or has kept it waiting for long."""
        self._history = job
        self.queue.wake()

    def health_error(self) -> str | None:
        """For any thread."""
        now = time.monotonic()
        if self._state:
            return f"the store {self._state}"
        if (outage := self._outage) is not None:
            return f"nothing can be written for {now - outage[0]:.0f} s: {outage[1]}"
        if (since := self._trying_since) is not None and now - since > _STUCK_SECONDS:
            return f"the database has not answered a write for {now - since:.0f} s"
        return None

    def _run(self) -> None:
        try:
            try:
                self._mailbox.post([self.opened.value(self._prepare())])
            except Exception as error:  # noqa: BLE001 - whoever opens the store hears it
                self._mailbox.post([self.opened.error(error)])
                return
            self._state = ""
            self._write_all()
        except Exception:
            _LOGGER.exception("the writer of the store has died")
            self._state = "has failed; see the log of the master"
        finally:
            self._state = self._state or "is closed"
            self._end()

    def _write_all(self) -> None:
        while True:
            is_out = self._outage is not None
            writes = self.queue.take(self._pause if is_out else max(self._prune_at - time.monotonic(), 0.0))
            if writes is None:
                return
            if writes:
                self._try(writes)
            elif is_out and not self.queue.is_busy:
                self._probe()
            if (job := self._history) is not None and (job.is_overdue or not self.queue.is_busy):
                self._history = None
                self._write_history(job)
            if self._outage is None and time.monotonic() >= self._prune_at:
                self._prune()

    def _try(self, writes: Sequence[Write]) -> None:
        self._trying_since = started = time.monotonic()
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                Batch(connection, self._logs, self._seal).write(writes)
                for write in writes:
                    write.maybe_written = True
                transaction.commit()
        except Exception as error:  # noqa: BLE001 - sorted out by whose fault it is
            self._logs.forget()
            self._observer.failed(kind_of(error))
            self._fail(writes, error)
        else:
            self._end_outage()
            self._observer.committed(time.monotonic() - started, len(writes))
            self._mailbox.post(_calls_after(self.queue.written()))
        finally:
            self._trying_since = None

    def _fail(self, writes: Sequence[Write], error: Exception) -> None:
        if not blames_row(error):
            self._begin_outage(in_words(error))
            given_up = self.queue.postpone(self._pause)
            self._mailbox.post([write.answer.error(self._unavailable()) for write in given_up])
        elif len(writes) > 1:
            self.queue.write_singly()
        else:
            # Not as exc_info: the error itself may quote the row, and with it what is secret in a task's environment.
            where = "".join(traceback.format_tb(error.__traceback__))
            name = type(writes[0]).__name__
            _LOGGER.error("a %s cannot be written and is lost: a bug: %s\n%s", name, in_words(error), where)
            self.queue.drop()
            refused = RuntimeError(f"the database refused it: {in_words(error)}")
            self._mailbox.post([w.answer.error(refused) for w in writes if isinstance(w, WaitedWrite)])

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(self.health_error() or "the store did not answer in time")

    def _begin_outage(self, why: str) -> None:
        self._pause = min(self._pause * 2 or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        if self._outage is None:
            _LOGGER.error("the database cannot be written, trying again until it can: %s", why)
        since = self._outage[0] if self._outage is not None else time.monotonic()
        self._outage = (since, why)

    def _end_outage(self) -> None:
        self._pause = 0.0
        if self._outage is not None:
            lasted = time.monotonic() - self._outage[0]
            self._outage = None
            _LOGGER.warning("the database can be written again, after %.1f s", lasted)

    def _probe(self) -> None:
        """See whether the outage is over, for nothing waits that would show it."""
        try:
            with self._engine.begin() as connection:
                connection.execute(select(1))
        except Exception as error:  # noqa: BLE001 - it is not
            self._begin_outage(in_words(error))
        else:
            self._end_outage()

    def _write_history(self, job: HistoryJob) -> None:
        """Once: it is not worth more, and who gave it keeps it."""
        written = Written(self._outage[1] if self._outage is not None else "")
        if self._outage is None:
            self._trying_since = time.monotonic()
            try:
                written = write_batch(self._engine, job.batch)
            except Exception as error:  # noqa: BLE001 - who gave it hears it
                self._observer.failed(kind_of(error))
                written = Written(in_words(error))
            finally:
                self._trying_since = None
        self._mailbox.post([lambda: job.on_done(written)])

    def _prune(self) -> None:
        pause = _PRUNE_IDLE_SECONDS
        try:
            with self._engine.begin() as connection:
                if prune_step(connection, self._retention, self._clock()):
                    pause = _PRUNE_PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - tried again later; what must be written goes on
            _LOGGER.warning("what is too old could not be removed: %s", in_words(error))
        self._prune_at = time.monotonic() + pause

    def _end(self) -> None:
        rest = self.queue.rest()
        if rest:
            _LOGGER.error("the store is closed with %d writes that could not be made", len(rest))
        self._mailbox.post(
            [write.answer.error(self._unavailable()) for write in rest if isinstance(write, WaitedWrite)]
        )
        try:
            self._release()
        finally:
            self._mailbox.post([self.ended.value(None)])


def _calls_after(writes: Sequence[Write]) -> list[Call]:
    """What is to be done on the hub now that these are durable."""
    calls: list[Call] = []
    for write in writes:
        if isinstance(write, WaitedWrite):
            outcome = write.outcome
            is_error = isinstance(outcome, FleetPulseError)
            calls.append(write.answer.error(outcome) if is_error else write.answer.value(outcome))
        elif isinstance(write, Save | AppendLog) and write.on_saved is not None:
            calls.append(write.on_saved)
    return calls
