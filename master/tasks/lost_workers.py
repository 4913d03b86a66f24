"""When the attempts of a worker that is away are given up. Pure; times are of the master's monotonic clock.

A worker that falls silent, leaves, or is not back after a start of the master gets a deadline; when it has passed, its
attempts are lost. While more than half of the fleet is away at once, nothing is given up: the master's own network is
the likelier cause, the workers most likely run on, and what they run would be run twice.
"""

STALL_SECONDS = 1.0


class EvictionLimiter:
    """Holds when more than ``lost_ratio`` of the workers were lost within ``window_seconds``. Releases when
    ``back_ratio`` of those are back, or ``hold_seconds`` after the beginning.

    Only workers that were seen count, so a start of the master begins with none. A worker that says goodbye leaves
    every sum; one that is lost and comes back again and again counts once. A fleet of fewer than ``min_fleet`` workers
    never holds: half of three is an accident.
    """

    def __init__(
        self,
        *,
        lost_ratio: float = 0.5,
        back_ratio: float = 0.5,
        window_seconds: float = 60.0,
        hold_seconds: float = 600.0,
        min_fleet: int = 4,
    ) -> None:
        self._lost_ratio, self._back_ratio = lost_ratio, back_ratio
        self._window_seconds, self._hold_seconds = window_seconds, hold_seconds
        self._min_fleet = min_fleet
        self._present: set[str] = set()
        self._lost_at: dict[str, float] = {}
        """Of the workers lost within the window, the longest ago first."""

        self._since: float | None = None
        self._away: set[str] = set()
        self._returned: set[str] = set()
        """Of the loss that is held: the workers that are still away, and those that are back."""

    def worker_back(self, worker_id: str, now: float) -> None:
        """The worker is there: new, or back again."""
        self._present.add(worker_id)
        self._lost_at.pop(worker_id, None)
        if worker_id in self._away:
            self._away.remove(worker_id)
            self._returned.add(worker_id)
        self._update(now)

    def worker_lost(self, worker_id: str, now: float) -> None:
        """The worker is silent. One that was not there changes nothing."""
        if worker_id not in self._present:
            return
        self._present.remove(worker_id)
        self._lost_at[worker_id] = now
        if self._since is not None:
            self._returned.discard(worker_id)
            self._away.add(worker_id)
        self._update(now)

    def worker_left(self, worker_id: str, now: float) -> None:
        """The worker said goodbye, or was forgotten: it counts neither as lost nor as there."""
        self._present.discard(worker_id)
        self._lost_at.pop(worker_id, None)
        self._away.discard(worker_id)
        self._returned.discard(worker_id)
        self._update(now)

    def is_holding(self, now: float) -> bool:
        self._update(now)
        return self._since is not None

    def _update(self, now: float) -> None:
        while self._lost_at and next(iter(self._lost_at.values())) <= now - self._window_seconds:
            del self._lost_at[next(iter(self._lost_at))]
        if self._since is None:
            # A worker that was lost within the window was there before it.
            fleet_size = len(self._present) + len(self._lost_at)
            if fleet_size >= self._min_fleet and len(self._lost_at) > fleet_size * self._lost_ratio:
                self._since = now
                self._away, self._returned = set(self._lost_at), set()
        elif now - self._since >= self._hold_seconds or self._enough_are_back():
            self._since = None
            self._away, self._returned = set(), set()

    def _enough_are_back(self) -> bool:
        return len(self._returned) >= (len(self._away) + len(self._returned)) * self._back_ratio


class LostWorkerTracker:
    """The deadlines of the workers that are away. ``expired`` must be called regularly."""

    def __init__(self, limiter: EvictionLimiter) -> None:
        self.limiter = limiter
        self._deadlines: dict[str, float] = {}
        self._checked_at: float | None = None

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._deadlines

    def away(self, worker_id: str, grace_seconds: float, now: float) -> None:
        """The worker is away from now on; one that is away already keeps its deadline."""
        self._deadlines.setdefault(worker_id, now + grace_seconds)

    def back(self, worker_id: str) -> None:
        """The worker is there."""
        self._deadlines.pop(worker_id, None)

    def expired(self, now: float) -> list[str]:
        """Returns the workers whose attempts are lost now. Time in which the master itself stalled does not count."""
        gap = 0.0 if self._checked_at is None else now - self._checked_at
        self._checked_at = now
        if gap > STALL_SECONDS:
            self._deadlines = {worker_id: deadline + gap for worker_id, deadline in self._deadlines.items()}
        if self.limiter.is_holding(now):
            return []
        expired = [worker_id for worker_id, deadline in self._deadlines.items() if deadline <= now]
        for worker_id in expired:
            del self._deadlines[worker_id]
        return expired
