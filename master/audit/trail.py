"""Takes entries on the hub and has a native thread write them.

Equal entries within a second are summed up: the first is written at once, the rest as one entry with their number. So a
client that scans, guesses, or signs in and out without end neither fills the disk nor pushes other entries out of the
trail. A change equals another only if both have the same target.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event

from fleetpulse.master.audit.entries import MASTER, AuditEntry, AuditFiles, AuditOutcome, line_of
from fleetpulse.master.audit.reader import AuditPage, AuditQuery, read_page
from fleetpulse.master.errors import AuditUnavailable, FleetPulseError, InvalidCursor
from fleetpulse.master.instruments import QUEUE_FULL, WRITE_FAILED, AuditInstruments

_LOGGER = logging.getLogger(__name__)

QUEUE_LENGTH = 20_000
"""More than the workers of a large fleet that register at once."""

REPEAT_SECONDS = 1.0
SYNC_SECONDS = 0.25
"""How long a written entry may not be durable. A killed process loses none of it, a machine may."""

MAX_KINDS = 32
"""Kinds of entries within a second. Further refusals lose their client; further changes are written as they come."""

OTHERS = "(others)"

_BATCH_LENGTH = 512

_Queued = tuple[float, AuditEntry, int]


class AuditTrail:
    """Made, started, asked and stopped on the hub. ``record`` works before ``start``."""

    def __init__(
        self,
        path: Path,
        instruments: AuditInstruments,
        max_file_bytes: int,
        queue_length: int = QUEUE_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` returns Unix seconds."""
        self._path, self._instruments, self._clock = path, instruments, clock
        self._queue_length = queue_length
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._dropped = 0
        """Since the start; counted on the hub, reported by the thread."""

        self._deduplicator, self._has_entries = Deduplicator(), Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._files = AuditFiles(path, max_file_bytes)
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._unreported, self._reported_dropped = 0, 0
        self._is_failing = False

    # On the hub

    def start(self) -> None:
        """Starts writing. A file that cannot be opened does not stop the master; opening is tried again."""
        self._thread.start()
        self._greenlet = gevent.spawn(self._flush_repeats)
        self._greenlet.name = "audit-repeats"

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Writes what was recorded and ends the thread."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._end_second()
            self._queue.put(None)
            gevent.get_hub().threadpool.apply(self._thread.join, (timeout_seconds,))

    def record(self, entry: AuditEntry) -> None:
        """Queues an entry for writing. Never waits."""
        self._has_entries.set()
        if (admitted := self._deduplicator.admit(entry)) is not None:
            self._put(admitted, 0)

    def read(self, query: AuditQuery) -> AuditPage:
        """Waits for a page. Raises ``InvalidCursor``, ``AuditUnavailable``."""
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

    def _flush_repeats(self) -> None:
        while True:
            self._has_entries.wait()
            gevent.sleep(REPEAT_SECONDS)
            self._has_entries.clear()
            self._end_second()

    def _end_second(self) -> None:
        for entry, repeated in self._deduplicator.end():
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
        """Waits for entries up to the timeout; returns them, and whether they are the last."""
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
        missing = self._unreported + dropped - self._reported_dropped
        lines = [line_of(*queued) for queued in batch]
        if missing:
            lines.append(line_of(self._clock(), _gap(missing)))
        if self._attempt(lambda: self._files.append(b"".join(lines))):
            self._instruments.written.inc(len(lines))
            self._unreported, self._reported_dropped = 0, dropped
        else:
            self._instruments.dropped.labels(WRITE_FAILED).inc(len(batch))
            self._unreported += len(batch)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Returns whether the action succeeded. Logs an outage when it begins and when it ends."""
        try:
            action()
        except OSError as error:
            self._instruments.failures.inc()
            if not self._is_failing:
                _LOGGER.error("the audit trail cannot be written: %s", error)  # noqa: TRY400 - the message says all
            self._is_failing = True
            return False
        if self._is_failing:
            _LOGGER.warning("the audit trail can be written again; %d entries were lost", self._unreported)
        self._is_failing = False
        return True


def _read(path: Path, query: AuditQuery) -> AuditPage | FleetPulseError:
    """Returns errors, because gevent's thread pool prints the traceback of one that is raised."""
    try:
        return read_page(path, query)
    except InvalidCursor as error:
        return error
    except OSError as error:
        unavailable = AuditUnavailable(f"the audit trail cannot be read: {error.strerror or error}")
        unavailable.__cause__ = error
        return unavailable


def _gap(missing: int) -> AuditEntry:
    detail = f"{missing} entries before this one are missing: the queue was full, or the file could not be written"
    return AuditEntry(MASTER, None, MASTER, "", "drop_entries", str(missing), AuditOutcome.FAILED, "", detail)


@dataclass(slots=True)
class _Kind:
    latest: AuditEntry
    more: int = 0


_Kinds = dict[tuple[object, ...], _Kind]


class Deduplicator:
    """The entries of the current second."""

    def __init__(self, max_kinds: int = MAX_KINDS) -> None:
        self._max_kinds = max_kinds
        self._refusals: _Kinds = {}
        self._changes: _Kinds = {}

    def admit(self, entry: AuditEntry) -> AuditEntry | None:
        """Returns what to write now: the entry, or without its client if there are too many kinds, or nothing."""
        if entry.outcome is AuditOutcome.OK:
            kinds, key = self._changes, (*_key(entry), entry.target)
        else:
            kinds, key = self._refusals, _key(entry)
        kind = kinds.get(key)
        if kind is None and len(kinds) >= self._max_kinds:
            if kinds is self._changes:
                return entry
            entry = msgspec.structs.replace(entry, client=OTHERS, actor=OTHERS, role=None, target="")
            key = _key(entry)
            kind = kinds.get(key)
        if kind is None:
            kinds[key] = _Kind(entry)
            return entry
        kind.latest = entry
        kind.more += 1
        return None

    def end(self) -> list[tuple[AuditEntry, int]]:
        """Ends the second; returns the last entry of each repeated kind, and how many it stands for."""
        repeated = [
            (kind.latest, kind.more)
            for kinds in (self._refusals, self._changes)
            for kind in kinds.values()
            if kind.more
        ]
        self._refusals.clear()
        self._changes.clear()
        return repeated


def _key(entry: AuditEntry) -> tuple[object, ...]:
    """Entries of one client are equal if only their target and the words of their detail differ."""
    reason, colon, _ = entry.detail.partition(": ")
    reason = reason if colon and reason.isidentifier() else ""
    return entry.actor, entry.role, entry.source, entry.client, entry.action, entry.outcome, entry.status, reason
