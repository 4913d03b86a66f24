"""The writes, one class for each kind, and the queue in which they wait for the writer.

The caller of a ``WaitedWrite`` may time out or be killed during the commit. It gets an error, so a write that turns out
durable is undone.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from gevent.event import AsyncResult

from fleetpulse.master.tasks.records import Changes, Drain, Idempotency, LogChunk, OnSaved

BATCH_LENGTH = 500
BATCH_BYTES = 4 * 1024 * 1024
"""Of logs in one transaction."""


class Caller(IntEnum):
    """What the caller of a write still waits for."""

    WAITING = 0
    LAST_TRY = 1
    """The try that is under way may succeed; there must be no other."""

    GONE = 2
    """It got an error, so the write must be undone where it is durable."""


@dataclass(slots=True, eq=False)
class Write:
    """Written whole or not at all."""

    maybe_written: bool = field(default=False, init=False)
    """A commit with it was tried; how it ended is not known."""

    @property
    def size_bytes(self) -> int:
        return 0

    @property
    def caller(self) -> Caller:
        return Caller.WAITING


@dataclass(slots=True, eq=False)
class Save(Write):
    """Writing it again changes nothing. The first of its events gets the id ``first_event_id``."""

    changes: Changes
    first_event_id: int
    on_saved: OnSaved | None = None


@dataclass(slots=True, eq=False)
class AppendLog(Write):
    chunk: LogChunk
    on_saved: OnSaved

    @property
    def size_bytes(self) -> int:
        return len(self.chunk.data)


@dataclass(slots=True, eq=False)
class SaveWorker(Write):
    worker_id: str
    hostname: str
    labels: Mapping[str, str]
    seen_at: float


@dataclass(slots=True, eq=False)
class WaitedWrite(Write):
    """A greenlet waits for ``answer``, which is set on the hub."""

    answer: "AsyncResult[Any]" = field(default_factory=AsyncResult, init=False)
    caller: Caller = field(default=Caller.WAITING, init=False)
    outcome: Any = field(default=None, init=False)
    """What the batch that wrote it answers: a value, or an error."""

    def undo(self) -> "Undo | None":
        """Returns the write that undoes this one, or ``None`` when it was never tried."""
        return Undo(self) if self.maybe_written else None


@dataclass(slots=True, eq=False)
class Undo(Write):
    """Makes it as if a write had never been made."""

    write: WaitedWrite


@dataclass(slots=True, eq=False)
class Submit(WaitedWrite):
    """Its outcome is the id of the task that has the idempotency key."""

    changes: Changes
    first_event_id: int
    idempotency: Idempotency | None
    task_id: str


@dataclass(slots=True, eq=False)
class SaveDrain(WaitedWrite):
    worker_id: str
    drain: Drain | None
    previous: Drain | None = field(default=None, init=False)
    previous_known: bool = field(default=False, init=False)
    """Set by the first batch that it was in; a later one may find what that one wrote."""


class WriteQueue:
    """Writes in order. One is waiting, or taken by the writer, and never lost between the two. For any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Write] = deque()
        self._taken: Sequence[Write] = ()
        self._not_before = 0.0
        self._singly = 0
        self._deadline: float | None = None
        self._is_woken = False

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def put(self, write: Write) -> bool:
        """Returns ``False`` when the queue is closed."""
        with self._changed:
            if self._deadline is not None:
                return False
            self._waiting.append(write)
            self._changed.notify()
            return True

    def wake(self) -> None:
        """Makes ``take`` return though nothing waits: the writer has something else to do."""
        with self._changed:
            self._is_woken = True
            self._changed.notify()

    def close(self, deadline: float) -> None:
        """Accepts no more; the writer goes on until all is written or the monotonic clock is at ``deadline``."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def take(self, idle_seconds: float) -> Sequence[Write] | None:
        """Returns the next writes; none after ``idle_seconds`` or a ``wake``; ``None`` at the end.

        The writer calls ``commit``, ``postpone``, ``retry_singly`` or ``discard`` next.
        """
        until = time.monotonic() + idle_seconds
        with self._changed:
            while True:
                now = time.monotonic()
                if self._deadline is not None and (not self._waiting or now >= self._deadline):
                    return None
                if self._waiting and now >= self._not_before:
                    self._taken = self._next_batch()
                    return self._taken
                if now >= until or self._is_woken:
                    self._is_woken = False
                    return ()
                wake_at = (until, self._not_before if self._waiting else until, self._deadline or until)
                self._changed.wait(max(min(wake_at) - now, 0.0))

    def commit(self) -> Sequence[Write]:
        """The taken writes are durable. Returns those whose callers wait for an answer."""
        with self._changed:
            done, self._taken = self._taken, ()
            kept = [write for write in done if write.caller is not Caller.GONE]
            if len(kept) < len(done):
                self._waiting.extendleft(reversed(_undo_gone(done)))
            return kept

    def postpone(self, delay_seconds: float) -> Sequence[WaitedWrite]:
        """The taken writes failed, and are next again after a pause. Removes those that allow no retry, and returns the
        ones whose callers wait for an answer."""
        with self._changed:
            taken, self._taken = self._taken, ()
            given_up = [w for w in taken if isinstance(w, WaitedWrite) and w.caller is not Caller.WAITING]
            kept = [write for write in taken if write.caller is Caller.WAITING]
            undos = [undo for write in reversed(given_up) if (undo := write.undo()) is not None]
            self._waiting.extendleft(reversed([*undos, *kept]))
            self._not_before = time.monotonic() + delay_seconds
            return [write for write in given_up if write.caller is Caller.LAST_TRY]

    def retry_singly(self) -> None:
        """One of the taken writes cannot be written: ``take`` returns them again, one by one."""
        with self._changed:
            self._singly = len(self._taken)
            self._waiting.extendleft(reversed(self._taken))
            self._taken = ()

    def discard(self) -> None:
        """The taken writes can never be written."""
        with self._changed:
            self._taken = ()

    def cancel_retries(self, write: WaitedWrite) -> bool:
        """The caller's time is up. Returns ``True`` when the write is out of the queue; ``False`` while a try is under
        way, which will answer, unless ``abandon`` is called before."""
        with self._changed:
            if write in self._taken:
                write.caller = Caller.LAST_TRY
                return False
            return self._withdraw(write)

    def abandon(self, write: WaitedWrite) -> bool:
        """The caller goes. Returns ``True`` when the write is out of the queue or will be undone; ``False`` when its
        answer is on the way."""
        with self._changed:
            if write in self._taken:
                write.caller = Caller.GONE
                return True
            return self._withdraw(write)

    def clear(self) -> Sequence[Write]:
        """The writer has ended, or is stuck. Returns the writes that were not made."""
        with self._changed:
            rest = (*self._taken, *self._waiting)
            self._taken = ()
            self._waiting.clear()
            return rest

    def _next_batch(self) -> Sequence[Write]:
        if self._singly:
            self._singly -= 1
            return (self._waiting.popleft(),)
        batch: list[Write] = []
        size = 0
        while self._waiting and len(batch) < BATCH_LENGTH and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].size_bytes
        return batch

    def _withdraw(self, write: WaitedWrite) -> bool:
        try:
            index = self._waiting.index(write)
        except ValueError:
            return False
        del self._waiting[index]
        if (undo := write.undo()) is not None:
            self._waiting.insert(index, undo)
        return True


def _undo_gone(done: Sequence[Write]) -> Sequence[Write]:
    """Returns the writes that undo durable ones whose callers got an error, the last one first."""
    undos: list[Undo | None] = []
    # Other callers may rely on the same rows: on the task of the same idempotency key, or on a later drain.
    kept_tasks = {w.outcome for w in done if isinstance(w, Submit) and w.caller is not Caller.GONE}
    drained_later: set[str] = set()
    for write in reversed(done):
        match write:
            case Submit(caller=Caller.GONE) if write.outcome not in kept_tasks:
                undos.append(write.undo())
            case SaveDrain(caller=Caller.GONE) if write.worker_id not in drained_later:
                undos.append(write.undo())
            case SaveDrain():
                drained_later.add(write.worker_id)
            case _:
                pass
    return [undo for undo in undos if undo is not None]
