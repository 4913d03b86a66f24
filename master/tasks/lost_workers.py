"""When the attempts of a worker that is away are given up. Pure; times are of the master's monotonic clock.

A worker that falls silent, leaves, or is not back after a start of the master gets a deadline; when it has passed, its
attempts are lost. While more than half of the fleet is away at once, nothing is given up: the master's own network is
the likelier cause, the workers most likely run on, and what they run would be run twice. At a start of the master all
are away at once.
"""

import logging
from collections.abc import Collection

_LOGGER = logging.getLogger(__name__)

STALL_SECONDS = 1.0


class EvictionLimiter:
    """Holds when more than ``lost_ratio`` of the workers were lost within ``window_seconds``. Releases when
    ``back_ratio`` of those are back, or ``hold_seconds`` after the beginning.

    Only workers that were seen count, and after a start of the master those that it expects. A worker that says goodbye
    leaves every sum; one that is lost and comes back again and again counts once. A fleet of fewer than ``min_fleet``
    workers never holds: half of three is an accident. A start also holds for two or three: that they are all gone, just
    when the master starts, is none. A single worker may well be gone, and never holds.
    """

    def __init__(
        self,
        *,
        lost_ratio: float = 0.5,
        back_ratio: float = 0.5,
        window_seconds: float = 60.0,
        hold_seconds: float = 600.0,
        min_fleet: int = 4,
        min_expected: int = 2,
    ) -> None:
        """``min_expected`` is for a start of the master what ``min_fleet`` is later."""
        self._lost_ratio, self._back_ratio = lost_ratio, back_ratio
        self._window_seconds, self.hold_seconds = window_seconds, hold_seconds
        self._min_fleet, self._min_expected = min_fleet, min_expected
        self._present: set[str] = set()
        self._lost_at: dict[str, float] = {}
        """Of the workers lost within the window, the longest ago first."""

        self._since: float | None = None
        self._away: set[str] = set()
        self._returned: set[str] = set()
        """Of the loss that is held: the workers that are still away, and those that are back."""

    def expect(self, worker_ids: Collection[str], now: float) -> None:
        """The master starts, and these workers have attempts. Holds until enough of them are there."""
        if len(worker_ids) >= self._min_expected:
            self._hold(worker_ids, now)
            _LOGGER.info("no attempt is given up until half of %d workers are back, at most %.0f s",
                         len(worker_ids), self.hold_seconds)  # fmt: skip

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
                self._hold(self._lost_at, now)
                _LOGGER.warning("%d of %d workers are lost at once: no attempt is given up until half are back, at "
                                "most %.0f s", len(self._lost_at), fleet_size, self.hold_seconds)  # fmt: skip
        elif now - self._since >= self.hold_seconds or self._enough_are_back():
            _LOGGER.log(logging.INFO if self._enough_are_back() else logging.WARNING,
                        "attempts of workers that stay away are given up again: %d are back after %.0f s, %d are not",
                        len(self._returned), now - self._since, len(self._away))  # fmt: skip
            self._since = None
            self._away, self._returned = set(), set()

    def _hold(self, away: Collection[str], now: float) -> None:
        self._since = now
        self._away, self._returned = set(away), set()

    def _enough_are_back(self) -> bool:
        return len(self._returned) >= (len(self._away) + len(self._returned)) * self._back_ratio


class LostWorkerTracker:
    """The deadlines of the workers that are away. ``expired`` must be called regularly.

    When a hold ends because enough workers are back, the others are probably on their way. They get ``return_seconds``
    more, and at least twice as long as the hold has lasted: the first half needed that time.
    """

    def __init__(self, limiter: EvictionLimiter, return_seconds: float) -> None:
        self.limiter = limiter
        self._return_seconds = return_seconds
        self._deadlines: dict[str, float] = {}
        self._checked_at: float | None = None
        self._held_since: float | None = None
        """As far as ``expired`` has seen."""

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
            if self._held_since is None:
                self._held_since = now
            return []
        if self._held_since is not None:
            self._end_hold(now, now - self._held_since)
            self._held_since = None
        expired = [worker_id for worker_id, deadline in self._deadlines.items() if deadline <= now]
        for worker_id in expired:
            del self._deadlines[worker_id]
        return expired

    def _end_hold(self, now: float, held_seconds: float) -> None:
        if held_seconds >= self.limiter.hold_seconds - STALL_SECONDS:
            return  # nobody came
        least = now + max(2.0 * held_seconds, self._return_seconds)
        self._deadlines = {worker_id: max(deadline, least) for worker_id, deadline in self._deadlines.items()}
