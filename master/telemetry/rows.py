"""The row of a worker in the live table: its record, its counts, and the heartbeats that wait for its greenlet."""

from typing import NamedTuple

import gevent

from fleetpulse.master.hub_queue import Wake
from fleetpulse.master.telemetry.readings import Reading
from fleetpulse.master.telemetry.records import HeartbeatCounts, WorkerTelemetry


class PendingReading(NamedTuple):
    """A checked heartbeat that waits for its worker's greenlet, with when it arrived and when it was sent."""

    reading: Reading
    received_monotonic: float
    received_wall: float
    sent_wall: float | None


class WorkerRow:
    """The latest of a worker, and the queue of its unprocessed heartbeats.

    ``held``: the incarnation still has its connection, as far as is known. ``closed``: the row left the table, and its
    greenlet ends.
    """

    __slots__ = (
        "_queue_length", "_refusal", "_refused_since", "_sequence", "clock_skew_seconds", "closed", "dropped",
        "greenlet", "held", "missed", "pending", "received", "refused", "telemetry", "wake",
    )  # fmt: skip

    def __init__(self, telemetry: WorkerTelemetry, queue_length: int) -> None:
        self.telemetry = telemetry
        # Not a deque, which takes 600 bytes when it is empty, as it nearly always is.
        self.pending: list[PendingReading] = []
        self._queue_length = queue_length
        self.wake = Wake()
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.held = True
        self.closed = False
        self.received = self.dropped = self.missed = self.refused = 0
        self.clock_skew_seconds: float | None = None
        self._refusal: str | None = None
        self._refused_since: float | None = None
        self._sequence = 0

    @property
    def incarnation_id(self) -> str:
        return self.telemetry.registration.incarnation_id

    @property
    def counts(self) -> HeartbeatCounts:
        """Of the heartbeats so far."""
        return HeartbeatCounts(
            *(self.received, self.dropped, self.missed, self.refused),
            *(self._refusal, self._refused_since, self.clock_skew_seconds),
        )

    def put(self, pending: PendingReading) -> bool:
        """Queue the heartbeat and wake the greenlet; whether the oldest was dropped for it."""
        overflows = len(self.pending) == self._queue_length
        if overflows:
            del self.pending[0]
        self.pending.append(pending)
        self.received += 1
        self._refusal = self._refused_since = None
        self.dropped += overflows
        self.wake.set()
        return overflows

    def refuse(self, reason: str, now: float) -> None:
        """A heartbeat was refused, at this Unix time."""
        self.refused += 1
        self._refusal = reason
        if self._refused_since is None:
            self._refused_since = now

    def is_next(self, sequence: int, superseded: int) -> bool:
        """Whether the sequence number is new; a gap, without those superseded, is added to ``missed``.

        0 comes from a sender that does not count. Without an incarnation id a restart looks like a repetition, so every
        number is new.
        """
        if sequence == 0 or not self.incarnation_id:
            return True
        if sequence <= self._sequence:
            return False
        if self._sequence:
            self.missed += max(0, sequence - self._sequence - 1 - superseded)
        self._sequence = sequence
        return True

    def restart(self) -> None:
        """Drop the queue and the sequence of the last incarnation."""
        self.pending.clear()
        self._sequence = 0
        self._refused_since = None

    def close(self) -> None:
        """Let the greenlet end, after the queue."""
        self.closed = True
        self.wake.set()
