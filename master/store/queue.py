"""What waits to be written, in order, and who still waits for it. Every method is for any thread."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from fleetpulse.master.store.writes import SaveDrain, Submit, WaitedWrite, WaitLimit, Write

BATCH_LENGTH = 500
BATCH_BYTES = 4 * 1024 * 1024
"""Of logs in one transaction."""


class WriteQueue:
    """A write is waiting, or taken by the writer; it is never lost between the two."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Write] = deque()
        self._taken: Sequence[Write] = ()
        self._not_before = 0.0
        self._singly = 0
        self._deadline: float | None = None
        self._is_woken = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def put(self, write: Write) -> bool:
        """``False``: the queue is closed, the write was not taken on."""
        with self._changed:
            if self._deadline is not None:
                return False
            self._waiting.append(write)
            self._changed.notify()
            return True

    def wake(self) -> None:
        """Let ``take`` return, though nothing waits: the writer has something else to do."""
        with self._changed:
            self._is_woken = True
            self._changed.notify()

    @property
    def is_busy(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def close(self, deadline: float) -> None:
        """Take nothing on, and let the writer go on until all is written or the monotonic clock is at ``deadline``."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def take(self, idle_seconds: float) -> Sequence[Write] | None:
        """What is to be written next, at once if it is there; nothing after ``idle_seconds`` or a ``wake``; ``None`` at
        the end.

        Called by the writer, which then says how it went: ``written``, ``postpone`` or ``write_singly``.
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

    def written(self) -> Sequence[Write]:
        """What was taken is durable: those writes whose callers are to be told so."""
        with self._changed:
            done, self._taken = self._taken, ()
            kept = [write for write in done if _patience(write) is not WaitLimit.GONE]
            if len(kept) < len(done):
                self._waiting.extendleft(reversed(_undo_gone(done)))
            return kept

    def postpone(self, delay_seconds: float) -> Sequence[WaitedWrite]:
        """What was taken could not be written; it is next again, after a pause. Those that nobody may wait for any
        longer are taken out; those of them whose callers still listen are returned."""
        with self._changed:
            taken, self._taken = self._taken, ()
            given_up = [w for w in taken if isinstance(w, WaitedWrite) and w.patience is not WaitLimit.FULL]
            kept = [write for write in taken if _patience(write) is WaitLimit.FULL]
            undone = [undo for write in reversed(given_up) for undo in _undone(write)]
            self._waiting.extendleft(reversed([*undone, *kept]))
            self._not_before = time.monotonic() + delay_seconds
            return [write for write in given_up if write.patience is WaitLimit.LAST_TRY]

    def write_singly(self) -> None:
        """What was taken holds something that cannot be written: take it again, one by one."""
        with self._changed:
            self._singly = len(self._taken)
            self._waiting.extendleft(reversed(self._taken))
            self._taken = ()

    def drop(self) -> None:
        """What was taken can never be written."""
        with self._changed:
            self._taken = ()

    def give_up_soon(self, write: WaitedWrite) -> bool:
        """The caller's patience has come to its end. ``True``: it will not be written. ``False``: a try is under way,
        which will answer; only ``abandon`` ends the wait before that."""
        with self._changed:
            if write in self._taken:
                write.patience = WaitLimit.LAST_TRY
                return False
            return self._withdraw(write)

    def abandon(self, write: WaitedWrite) -> bool:
        """The caller goes. ``True``: it will not be written, or be taken back. ``False``: the answer is on its way."""
        with self._changed:
            if write in self._taken:
                write.patience = WaitLimit.GONE
                return True
            return self._withdraw(write)

    def abort(self) -> Sequence[WaitedWrite]:
        """The writer is stuck and nobody can wait for it any longer: those who do, to be told so."""
        with self._changed:
            waited = [write for write in (*self._taken, *self._waiting) if isinstance(write, WaitedWrite)]
            self._waiting.clear()
            return waited

    def rest(self) -> Sequence[Write]:
        """What was never written, after the end."""
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
        weight = 0
        while self._waiting and len(batch) < BATCH_LENGTH and weight < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            weight += batch[-1].weight_bytes
        return batch

    def _withdraw(self, write: WaitedWrite) -> bool:
        try:
            index = self._waiting.index(write)
        except ValueError:
            return False
        del self._waiting[index]
        for undo in _undone(write):
            self._waiting.insert(index, undo)
        return True


def _patience(write: Write) -> WaitLimit:
    return write.patience if isinstance(write, WaitedWrite) else WaitLimit.FULL


def _undone(write: WaitedWrite) -> Sequence[Write]:
    undo = write.undo() if write.maybe_written else None
    return () if undo is None else (undo,)


def _undo_gone(done: Sequence[Write]) -> Sequence[Write]:
    """What takes back those that are durable though their callers were told otherwise, the last one first."""
    undone: list[Write] = []
    # Others may have been told of what is there: of the task, for the same idempotency key, or of a later drain.
    promised = {w.outcome for w in done if isinstance(w, Submit) and w.patience is not WaitLimit.GONE}
    drained_later: set[str] = set()
    for write in reversed(done):
        match write:
            case Submit(patience=WaitLimit.GONE) if write.outcome not in promised:
                undone.extend(_undone(write))
            case SaveDrain(patience=WaitLimit.GONE) if write.worker_id not in drained_later:
                undone.extend(_undone(write))
            case SaveDrain():
                drained_later.add(write.worker_id)
            case _:
                pass
    return undone
