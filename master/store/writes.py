"""What waits to be written: one kind of write a class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from fleetpulse.master.store.answer import Answer
from fleetpulse.master.tasks.ports import Changes, Idempotency, OnSaved
from fleetpulse.master.tasks.records import Drain, LogChunk


class WaitLimit(IntEnum):
    """Of the one who waits for a write."""

    FULL = 0
    LAST_TRY = 1
    """The try that is under way may still succeed; there shall be no other."""

    GONE = 2
    """It was told that nothing was written, so that must be true in the end."""


@dataclass(slots=True, eq=False)
class Write:
    """One thing to be written, whole or not at all."""

    maybe_written: bool = field(default=False, init=False)
    """A commit with it was tried, and nobody knows how it ended."""

    @property
    def weight_bytes(self) -> int:
        return 0


@dataclass(slots=True, eq=False)
class Save(Write):
    """``event_ids`` begin at this number. Writing it again changes nothing."""

    changes: Changes
    event_ids: int
    on_saved: OnSaved | None = None


@dataclass(slots=True, eq=False)
class AppendLog(Write):
    chunk: LogChunk
    on_saved: OnSaved

    @property
    def weight_bytes(self) -> int:
        return len(self.chunk.data)


@dataclass(slots=True, eq=False)
class NoteWorker(Write):
    worker_id: str
    hostname: str
    labels: Mapping[str, str]
    seen_at: float


@dataclass(slots=True, eq=False)
class EraseTask(Write):
    """Take back a submit whose caller was told that it had failed."""

    task_id: str


@dataclass(slots=True, eq=False)
class SetDrain(Write):
    """What a drain was before, put back after its caller was told that changing it had failed."""

    worker_id: str
    drain: Drain | None


@dataclass(slots=True, eq=False)
class WaitedWrite(Write):
    """One that a greenlet waits for."""

    answer: Answer
    patience: WaitLimit = field(default=WaitLimit.FULL, init=False)
    outcome: Any = field(default=None, init=False)
    """Set by the batch that wrote it: the value of the answer, or an error."""

    def undo(self) -> Write | None:
        """What makes it as if it had never been written, where it may have been."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class Submit(WaitedWrite):
    """The id of the task that is there in the end is its outcome."""

    changes: Changes
    event_ids: int
    idempotency: Idempotency | None
    task_id: str

    def undo(self) -> Write | None:
        return EraseTask(self.task_id)


@dataclass(slots=True, eq=False)
class SaveDrain(WaitedWrite):
    worker_id: str
    drain: Drain | None
    previous: Drain | None = field(default=None, init=False)
    previous_is_known: bool = field(default=False, init=False)
    """Set by the first batch that it was in; a later one could find what that one wrote."""

    def undo(self) -> Write | None:
        return SetDrain(self.worker_id, self.previous) if self.previous_is_known else None
