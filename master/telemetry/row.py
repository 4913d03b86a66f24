"""One row of the live table: the latest of a worker, and the queue of what is not processed yet."""

from typing import NamedTuple

import gevent
from gevent.event import Event

from fleetpulse.master.telemetry.records import HeartbeatCounts, Reading, WorkerTelemetry


class PendingReading(NamedTuple):
    """A checked heartbeat that waits for its worker's greenlet. The times say when it arrived, and when it was sent."""

    reading: Reading
    received_monotonic: float
    received_wall: float
    sent_wall: float | None


class WorkerRow:
    """Mutable, and seen by the TelemetryManager alone.

    ``held`` says that the incarnation still has its connection, as far as is known; ``closed`` that the row left the
    table and its greenlet shall end.
    """

    __slots__ = (
        "_missed",
        "_queue_length",
        "_sequence",
        "closed",
        "dropped",
        "greenlet",
        "held",
        "pending",
        "received",
        "telemetry",
        "wake",
    )

    def __init__(self, telemetry: WorkerTelemetry, queue_length: int) -> None:
        self.telemetry = telemetry
        # Not a deque, which takes 600 bytes when it is empty, as it nearly always is.
        self.pending: list[PendingReading] = []
        self._queue_length = queue_length
        self.wake = Event()
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.held = True
        self.closed = False
        self.received = self.dropped = self._missed = 0
        self._sequence = 0

    @property
    def incarnation_id(self) -> str:
        return self.telemetry.registration.incarnation_id

    @property
    def counts(self) -> HeartbeatCounts:
        return HeartbeatCounts(self.received, self.dropped, self._missed)

    def put(self, pending: PendingReading) -> bool:
        """Queue the heartbeat and wake the greenlet; whether the oldest had to make room."""
        overflows = len(self.pending) == self._queue_length
        if overflows:
            del self.pending[0]
        self.pending.append(pending)
        self.received += 1
        self.dropped += overflows
        self.wake.set()
        return overflows

    def is_next(self, sequence: int) -> bool:
        """Whether the sequence number is new; a gap is added to what the worker missed.

        0 is a sender that does not count. Without an incarnation id a restart cannot be told from a repetition, so then
        every number is new.
        """
        if sequence == 0 or not self.incarnation_id:
            return True
        if sequence <= self._sequence:
            return False
        if self._sequence:
            self._missed += sequence - self._sequence - 1
        self._sequence = sequence
        return True

    def restart(self) -> None:
        """Another incarnation begins: what the last one left in the queue does not count, nor does its sequence."""
        self.pending.clear()
        self._sequence = 0

    def close(self, *, drop_pending: bool) -> None:
        """Let the greenlet end, after what is queued unless that is dropped."""
        if drop_pending:
            self.pending.clear()
        self.closed = True
        self.wake.set()
