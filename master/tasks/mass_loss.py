"""Whether so much of the fleet went away at once that the master's own network is the likelier cause. Pure.

While it holds, nothing is given up and nothing is placed anew: the workers most likely run on, and what they run would
be run twice.
"""

from typing import NamedTuple


class MassLoss(NamedTuple):
    """A hold that is on."""

    since: float
    """Monotonic seconds."""

    lost: int
    """Workers that are still away."""

    of: int
    """The workers that there were before the loss."""


class EvictionLimiter:
    """Holds when more than ``lost_ratio`` of the workers were lost within ``window_seconds``, and lets go when
    ``back_ratio`` of those are back, or ``hold_seconds`` after the beginning.

    Times are of the master's monotonic clock. Only workers that were there count, so a start of the master begins with
    nobody; a worker that says goodbye is taken out of every sum, and one that is lost and comes back again and again is
    one worker. A fleet of fewer than ``min_fleet`` workers never holds: half of three is an accident.
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
        self._lost_ratio = lost_ratio
        self._back_ratio = back_ratio
        self._window_seconds = window_seconds
        self._hold_seconds = hold_seconds
        self._min_fleet = min_fleet
        self._present: set[str] = set()
        self._lost_at: dict[str, float] = {}
        """Of those lost within the window, the longest ago first."""

        self._since: float | None = None
        self._away: set[str] = set()
        """The part of the loss that is still away."""

        self._returned: set[str] = set()
        """The part of the loss that is back."""

        self._fleet_size = 0

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

    def hold(self, now: float) -> MassLoss | None:
        """The hold that is on, or ``None``."""
        self._update(now)
        if self._since is None:
            return None
        return MassLoss(self._since, len(self._away), max(self._fleet_size, len(self._away)))

    def is_holding(self, now: float) -> bool:
        return self.hold(now) is not None

    def _update(self, now: float) -> None:
        self._forget_before(now - self._window_seconds)
        if self._since is None:
            # Whoever was lost within the window was there before it.
            fleet_size = len(self._present) + len(self._lost_at)
            if fleet_size >= self._min_fleet and len(self._lost_at) > fleet_size * self._lost_ratio:
                self._begin(now, fleet_size)
        elif now - self._since >= self._hold_seconds or self._enough_are_back():
            self._since = None
            self._away, self._returned = set(), set()

    def _begin(self, now: float, fleet_size: int) -> None:
        self._since = now
        self._fleet_size = fleet_size
        self._away = set(self._lost_at)
        self._returned = set()

    def _enough_are_back(self) -> bool:
        return len(self._returned) >= (len(self._away) + len(self._returned)) * self._back_ratio

    def _forget_before(self, time: float) -> None:
        while self._lost_at:
            worker_id = next(iter(self._lost_at))
            if self._lost_at[worker_id] > time:
                return
            del self._lost_at[worker_id]
