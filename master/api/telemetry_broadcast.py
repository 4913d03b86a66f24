"""What all readers of the telemetry stream share: events encoded once, and the greenlet that wakes the readers."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import gevent

from fleetpulse.master.api.subscribers import event_bytes
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.telemetry.change_log import ChangeLog, ChangeWindow

_LOGGER = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
"""Of workers in an event; the last of them may go over it."""

REMOVALS_PER_EVENT = 256
CACHED_CHUNKS = 64

READERS_PER_TURN = 16
"""Readers that are woken before other greenlets have their turn."""

_STALL_CHECK_SECONDS = 5.0
"""Between two checks for stalled readers while nothing changes."""

Member = Callable[[str], bytes | None]
"""A worker as the member of a JSON object; ``None`` for one that is not there any more."""


class StreamChunk(NamedTuple):
    """The workers of a window up to number ``stop``. No event: all of them have gone."""

    event: bytes | None
    stop: int


class EventEncoder:
    """Makes the events of one form of the records. Lives on the hub; nothing here switches."""

    def __init__(self, boot_id: str, member: Member) -> None:
        self._boot_id = boot_id
        self._member = member
        self._cache: OrderedDict[tuple[int, int], tuple[ChangeWindow, StreamChunk]] = OrderedDict()

    def clear(self) -> None:
        """Encodes everything anew from now on."""
        self._cache.clear()

    def chunk(self, window: ChangeWindow, start: int) -> StreamChunk:
        """Returns the workers of the window from number ``start`` on, as they are now or in the cache."""
        key = id(window), start
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][1]
        chunk = self._encode(window, start)
        # The window is kept with it, so no other has this id meanwhile.
        self._cache[key] = window, chunk
        if len(self._cache) > CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return chunk

    def removed(self, window: ChangeWindow) -> list[bytes]:
        """Returns the events for workers that left. The last has the window's id, unless changes follow."""
        starts = range(0, len(window.removed), REMOVALS_PER_EVENT)
        rows = [window.removed[start : start + REMOVALS_PER_EVENT] for start in starts]
        return [self._removal(row, window, is_last=row is rows[-1] and not window.worker_ids) for row in rows]

    def _removal(self, worker_ids: Sequence[str], window: ChangeWindow, *, is_last: bool) -> bytes:
        return event_bytes("removed", {"worker_ids": list(worker_ids)}, self._id(window.revision) if is_last else None)

    def _encode(self, window: ChangeWindow, start: int) -> StreamChunk:
        members, size, stop = [], 0, start
        while stop < len(window.worker_ids) and size < CHUNK_BYTES:
            member = self._rendered(window.worker_ids[stop])
            stop += 1
            if member is not None:
                members.append(member)
                size += len(member) + 1
        is_last = stop == len(window.worker_ids)
        workers = b",".join(members)
        if window.revisions is None:
            body = b'{"workers":{%b},"complete":%b}' % (workers, b"true" if is_last else b"false")
            return StreamChunk(event_bytes("snapshot", body, self._id(window.revision) if is_last else None), stop)
        if not members:
            return StreamChunk(None, stop)
        reached = window.revision if is_last else window.revisions[stop - 1]
        return StreamChunk(event_bytes("update", b'{"workers":{%b}}' % workers, self._id(reached)), stop)

    def _rendered(self, worker_id: str) -> bytes | None:
        try:
            return self._member(worker_id)
        except Exception:
            _LOGGER.exception("worker %s: its telemetry could not be rendered", worker_id)
            return None

    def _id(self, revision: int) -> str:
        return f"{self._boot_id}-{revision}"


class Timing(NamedTuple):
    """In seconds."""

    pause: float = 0.5
    """Between two broadcasts."""
    keepalive: float = 15.0
    """A reader that got nothing for so long gets a comment."""
    stall_timeout: float = 60.0
    """For a reader to take one event."""


class Reader(Protocol):
    """A reader as the broadcaster sees it. No method switches."""

    @property
    def is_filtered(self) -> bool:
        """Whether it reads some workers only."""

    def notify(self, revision: int, changed: frozenset[str] | None) -> None:
        """The revision was reached by changes of these workers; ``None``: of any."""

    def stalled_seconds(self, now: float) -> float:
        """Returns for how long it has not taken an event."""

    def disconnect(self) -> None:
        """Ends its connection."""


class Broadcaster:
    """Notifies readers of changes, and disconnects those that have stalled. Lives on the hub.

    Its greenlet runs while there are readers.
    """

    def __init__(
        self,
        changes: ChangeLog,
        encoders: Iterable[EventEncoder],
        timing: Timing,
        count_disconnected: Callable[[], None],
    ) -> None:
        self._changes = changes
        self._encoders = tuple(encoders)
        self._timing = timing
        self._count_disconnected = count_disconnected
        self._readers: dict[Reader, None] = {}
        self._windows: dict[int, ChangeWindow] = {}
        self._snapshot: ChangeWindow | None = None
        self._notified = 0
        """The revision of the last broadcast."""
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def add(self, reader: Reader) -> None:
        """Notifies this reader from now on."""
        self._readers[reader] = None
        if self._greenlet is None:
            self._notified = self._changes.revision
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.name = "telemetry-broadcast"

    def remove(self, reader: Reader) -> None:
        """Does nothing for a reader that is not there."""
        self._readers.pop(reader, None)
        if not self._readers and self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None
            self._clear()

    def since(self, revision: int, worker_ids: frozenset[str] | None = None) -> ChangeWindow:
        """Returns the changes since a revision, which the log must reach; those of all workers are shared."""
        if worker_ids is not None:
            return self._changes.since(revision, worker_ids)
        window = self._windows.get(revision)
        if window is None:
            window = self._windows[revision] = self._changes.since(revision)
        return window

    def snapshot(self, worker_ids: frozenset[str] | None = None) -> ChangeWindow:
        """Returns these workers as of now; all workers are shared until something changes."""
        if worker_ids is not None:
            return self._changes.all_workers(worker_ids)
        if self._snapshot is None or self._snapshot.revision != self._changes.revision:
            self._snapshot = self._changes.all_workers()
        return self._snapshot

    def _run(self) -> None:
        """Body of the greenlet."""
        check_seconds = min(_STALL_CHECK_SECONDS, self._timing.stall_timeout / 4.0)
        while True:
            has_changes = self._changes.changed.wait(check_seconds)
            try:
                self._disconnect_stalled()
                if has_changes:
                    self._changes.changed.clear()
                    self._broadcast()
            except Exception:
                _LOGGER.exception("a broadcast of the telemetry stream failed")
            if has_changes:
                gevent.sleep(self._timing.pause)

    def _broadcast(self) -> None:
        self._clear()
        revision, changed = self._changes.revision, self._changed_workers()
        self._notified = revision
        for number, reader in enumerate(list(self._readers), start=1):
            reader.notify(revision, changed)
            if number % READERS_PER_TURN == 0:
                give_way()

    def _changed_workers(self) -> frozenset[str] | None:
        """Returns the workers that changed or left since the last broadcast; ``None``: unknown, or not needed."""
        is_needed = any(reader.is_filtered for reader in self._readers)
        if not is_needed or not self._changes.covers(self._notified):
            return None
        window = self.since(self._notified)
        return frozenset(window.worker_ids) | frozenset(window.removed)

    def _disconnect_stalled(self) -> None:
        now, timeout = time.monotonic(), self._timing.stall_timeout
        for reader in list(self._readers):
            if reader.stalled_seconds(now) > timeout:
                _LOGGER.warning("a reader of the telemetry stream took nothing for %.0f s; it is disconnected", timeout)
                self._count_disconnected()
                reader.disconnect()

    def _clear(self) -> None:
        """Drops what the last broadcast shared. A reader that is not done yet goes on with the latest."""
        self._windows.clear()
        self._snapshot = None
        for encoder in self._encoders:
            encoder.clear()
