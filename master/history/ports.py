"""What the history asks of others: a store that keeps it, and perhaps a Prometheus that has more of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from fleetpulse.master.history.points import JournalPoint, Points
from fleetpulse.master.history.window import Series, Window


class Tier(NamedTuple):
    """Points of one length. A chunk holds at most ``chunk_points``, whose time is one stretch of that many steps."""

    step_seconds: int
    chunk_points: int
    retention_seconds: float

    @property
    def chunk_seconds(self) -> int:
        return self.step_seconds * self.chunk_points


class Chunk(NamedTuple):
    """Some points of one worker as they are stored. ``first`` and ``last``: when those points begin."""

    worker_id: str
    step: int
    first: int
    last: int
    points: int
    data: bytes


class HistoryBatch(NamedTuple):
    """What is written in one transaction. The maps have a step each.

    Of the journal, all rows go that hold nothing but points before ``journal_before``; of the chunks that end before
    ``chunks_before`` some.
    """

    journal: Mapping[int, Sequence[JournalPoint]]
    chunks: Sequence[Chunk]
    journal_before: Mapping[int, float]
    chunks_before: Mapping[int, float]


class Written(NamedTuple):
    """What came of a batch. ``error`` says why it was not written; the rest is of one that was."""

    error: str | None = None
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


class RecoveredState(NamedTuple):
    """What the journal has of one worker and step, in the order of writing. Until ``saved`` it is in chunks."""

    points: Points
    saved: int | None


NO_REMAINS = RecoveredState(Points([], bytearray()), None)


class HistoryStore(Protocol):
    """Everything is called on the hub; "waits" means cooperatively. What waits may raise ``StoreUnavailable``."""

    def save(self, batch: HistoryBatch, on_done: Callable[[Written], None]) -> None:
        """Write it when nothing more urgent waits. One at a time. Does not wait; ``on_done`` is called on the hub."""
        ...

    def recover(self, steps: Sequence[int]) -> Mapping[str, Mapping[int, RecoveredState]]:
        """Wait for what the journal has, by worker and step."""
        ...

    def read(
        self, worker_id: str, step: int, window: Window, fields: Sequence[str], recent: Sequence[Points]
    ) -> Mapping[str, Series]:
        """Wait for those fields of a worker: what is stored as points of ``step``, and ``recent``, which may be stored
        meanwhile."""
        ...

    def has_worker(self, worker_id: str) -> bool:
        """Wait for whether anything is stored of the worker."""
        ...


class LongHistory(Protocol):
    """A Prometheus that scrapes this master."""

    def read(self, worker_id: str, window: Window, fields: Sequence[str]) -> Mapping[str, Series]:
        """Wait for those fields of a worker. Raises ``PrometheusUnavailable``."""
        ...
