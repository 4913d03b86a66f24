"""Which workers are away with live attempts, and since when: what must be known before an attempt is given up. Pure.

A worker that falls silent, leaves, or is not back after a start of the master gets a deadline; when it has passed its
attempts are lost. While more than half of the fleet is gone at once nothing is given up: it is more likely the master's
own network (``mass_loss``).
"""

from fleetpulse.master.tasks.mass_loss import EvictionLimiter

STALL_SECONDS = 1.0


class LostWorkerTracker:
    """Times are of the master's monotonic clock. ``expired`` must be called regularly."""

    def __init__(self, guard: EvictionLimiter) -> None:
        self.guard = guard
        self._deadlines: dict[str, float] = {}
        self._used_at: float | None = None

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._deadlines

    def away(self, worker_id: str, patience_seconds: float, now: float) -> None:
        """The worker is away from now on; one that is away already keeps its deadline."""
        self._deadlines.setdefault(worker_id, now + patience_seconds)

    def back(self, worker_id: str) -> None:
        """The worker is there."""
        self._deadlines.pop(worker_id, None)

    def expired(self, now: float) -> list[str]:
        """Whose attempts are to be given up now. Time in which the master itself stood still does not count."""
        gap = 0.0 if self._used_at is None else now - self._used_at
        self._used_at = now
        if gap > STALL_SECONDS:
            self._deadlines = {worker_id: deadline + gap for worker_id, deadline in self._deadlines.items()}
        if self.guard.is_holding(now):
            return []
        gone = [worker_id for worker_id, deadline in self._deadlines.items() if deadline <= now]
        for worker_id in gone:
            del self._deadlines[worker_id]
        return gone
