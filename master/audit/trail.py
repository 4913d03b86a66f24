"""Takes entries on the hub, and has a native thread write them."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import Event

from fleetpulse.master.audit.entry import MASTER, AuditEntry, AuditOutcome, line_of
from fleetpulse.master.audit.files import AuditFiles
from fleetpulse.master.audit.reader import AuditPage, AuditQuery, read_page
from fleetpulse.master.audit.repeats import Repeats
from fleetpulse.master.errors import AuditUnavailable, FleetPulseError, InvalidCursor
from fleetpulse.master.instruments.audit import QUEUE_FULL, WRITE_FAILED, AuditInstruments

_LOGGER = logging.getLogger(__name__)

QUEUE_LENGTH = 20_000
"""More than all workers of a large fleet that register at once."""

REPEAT_SECONDS = 1.0
SYNC_SECONDS = 0.25
"""For so long a written entry may not be durable yet. A process that is killed loses none of it, a machine may."""

_BATCH_LENGTH = 512

_Queued = tuple[float, AuditEntry, int]


class AuditTrail:
    """Made, started, asked and stopped on the hub. ``record`` takes entries from the start of the object on."""

    def __init__(
        self,
        path: Path,
        instruments: AuditInstruments,
        max_file_bytes: int,
        queue_length: int = QUEUE_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives Unix seconds."""
        self._path, self._instruments, self._clock = path, instruments, clock
        self._queue_length = queue_length
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._dropped = 0
        """Since the start; counted on the hub, told by the thread."""

        self._repeats, self._repeating = Repeats(), Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._files = AuditFiles(path, max_file_bytes)
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._untold, self._told_dropped = 0, 0
        self._is_failing = False

    # On the hub

    def start(self) -> None:
        """Begin to write. A file that cannot be opened is no reason not to start: it is tried again."""
        self._thread.start()
        self._greenlet = gevent.spawn(self._tell_repeats)
        self._greenlet.name = "audit-repeats"

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Write what was recorded, and end the thread."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._end_second()
            self._queue.put(None)
            gevent.get_hub().threadpool.apply(self._thread.join, (timeout_seconds,))

    def record(self, entry: AuditEntry) -> None:
        """Have it written. Never waits. Of equal entries within a second the first is written, and their number."""
        self._repeating.set()
        if (admitted := self._repeats.admit(entry)) is not None:
            self._put(admitted, 0)

    def read(self, query: AuditQuery) -> AuditPage:
        """Wait for a page, the newest first. Raises ``InvalidCursor``, ``AuditUnavailable``."""
        found: AuditPage | FleetPulseError = gevent.get_hub().threadpool.apply(_read, (self._path, query))
        if isinstance(found, FleetPulseError):
            raise found
        return found

    def _put(self, entry: AuditEntry, repeated: int) -> None:
        if self._queue.qsize() >= self._queue_length:
            self._dropped += 1
            self._instruments.dropped.labels(QUEUE_FULL).inc()
        else:
            self._queue.put((self._clock(), entry, repeated))

    def _tell_repeats(self) -> None:
        while True:
            self._repeating.wait()
            gevent.sleep(REPEAT_SECONDS)
            self._repeating.clear()
            self._end_second()

    def _end_second(self) -> None:
        for entry, repeated in self._repeats.end():
            self._put(entry, repeated)

    # In the thread

    def _run(self) -> None:
        try:
            self._write_all()
        except Exception:
            _LOGGER.exception("the writer of the audit trail has died")

    def _write_all(self) -> None:
        sync_at: float | None = None
        is_over = False
        while not is_over:
            batch, is_over = self._take(None if sync_at is None else max(sync_at - time.monotonic(), 0.0))
            if batch:
                self._write(batch)
                sync_at = sync_at or time.monotonic() + SYNC_SECONDS
            if is_over:
                self._attempt(self._files.close)
            elif sync_at is not None and time.monotonic() >= sync_at:
                sync_at = None
                self._attempt(self._files.sync)

    def _take(self, timeout_seconds: float | None) -> tuple[list[_Queued], bool]:
        """What waits, once there is something or the time is over; and whether nothing will come after it."""
        batch: list[_Queued] = []
        try:
            while len(batch) < _BATCH_LENGTH:
                queued = self._queue.get_nowait() if batch else self._queue.get(timeout=timeout_seconds)
                if queued is None:
                    return batch, True
                batch.append(queued)
        except queue.Empty:
            pass
        return batch, False

    def _write(self, batch: list[_Queued]) -> None:
        dropped = self._dropped
        missing = self._untold + dropped - self._told_dropped
        lines = [line_of(*queued) for queued in batch]
        if missing:
            lines.append(line_of(self._clock(), _gap(missing)))
        if self._attempt(lambda: self._files.append(b"".join(lines))):
            self._instruments.written.inc(len(lines))
            self._untold, self._told_dropped = 0, dropped
        else:
            self._instruments.dropped.labels(WRITE_FAILED).inc(len(batch))
            self._untold += len(batch)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether it went well. An outage is logged where it begins and where it ends."""
        try:
            action()
        except OSError as error:
            self._instruments.failures.inc()
            if not self._is_failing:
                _LOGGER.error("the audit trail cannot be written: %s", error)  # noqa: TRY400 - the message says all
            self._is_failing = True
            return False
        if self._is_failing:
            _LOGGER.warning("the audit trail can be written again; %d entries were lost", self._untold)
        self._is_failing = False
        return True


def _read(path: Path, query: AuditQuery) -> AuditPage | FleetPulseError:
    """In a thread of gevent's pool, which would print the traceback of an error that is raised."""
    try:
        return read_page(path, query)
    except InvalidCursor as error:
        return error
    except OSError as error:
        unavailable = AuditUnavailable(f"the audit trail cannot be read: {error.strerror or error}")
        unavailable.__cause__ = error
        return unavailable


def _gap(missing: int) -> AuditEntry:
    told = f"{missing} entries before this one are missing: the queue was full, or the file could not be written"
    return AuditEntry(MASTER, None, MASTER, "", "drop_entries", str(missing), AuditOutcome.FAILED, "", told)
