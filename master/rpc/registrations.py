"""The line of registrations that wait for the hub. When it is too long, the rest are told when to come."""

import time
from collections.abc import Callable

MAX_LINE_SECONDS = 5.0
"""A worker waits so long for its registration; the others are told to come later."""

MAX_DELAY_SECONDS = 120.0
"""The longest that a worker is told to stay away; a worker accepts no more."""

FIRST_COST_SECONDS = 0.003
"""The assumed time for a registration, until some were measured: 2 to 4 ms, 5 ms with TLS (docs/performance.md)."""

_MAX_COST_SECONDS = 0.05
_NEWEST_WEIGHT = 0.05
"""Of the newest measurement in the mean."""

_MAX_SPREAD_SECONDS = 60.0
_MIN_SPREAD_SECONDS = 1.0


class RegistrationLine:
    """``arrive``, ``next_turn`` and ``is_full`` are for grpc's thread, ``leave`` and ``spread_seconds`` for the hub.

    A registration takes as long as from the end of the one before it in the line to its own end, so with all that the
    master does meanwhile. That is the pace at which workers can come back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Each is changed by one thread only.
        self._arrived = self._left = 0
        self._left_at: float | None = None
        self._next_turn_at = 0.0
        self.cost_seconds = FIRST_COST_SECONDS
        """Mean time of a registration."""

    @property
    def waiting(self) -> int:
        """The registrations that have arrived and were not handled."""
        return self._arrived - self._left

    @property
    def is_full(self) -> bool:
        """Whether one more would wait for too long."""
        return self.waiting * self.cost_seconds > MAX_LINE_SECONDS

    def arrive(self) -> bool:
        """Takes a registration into the line; returns False if the line is full."""
        if self.is_full:
            return False
        self._arrived += 1
        return True

    def next_turn(self) -> float:
        """Returns in how many seconds one that is refused should come: one by one, as fast as they are handled.

        The first comes when half of the line is handled, so that the line does not run dry.
        """
        now, cost_seconds = self._clock(), self.cost_seconds
        begins_at = now + self.waiting * cost_seconds / 2
        at = max(self._next_turn_at + cost_seconds, begins_at)
        self._next_turn_at = min(at, now + MAX_DELAY_SECONDS)
        return self._next_turn_at - now

    def leave(self) -> None:
        """One was handled, whether it registered its worker or not."""
        now = self._clock()
        if self._left_at is not None:
            seconds = min(now - self._left_at, _MAX_COST_SECONDS)
            self.cost_seconds += _NEWEST_WEIGHT * (seconds - self.cost_seconds)
        self._left += 1
        # If nobody waits, the time until the next one says nothing.
        self._left_at = now if self.waiting else None

    def spread_seconds(self, workers: int, timeout_seconds: float) -> float:
        """Returns over how long so many workers should spread their return. 0 if that is below a second.

        Below half of the inactivity timeout, so that nobody becomes inactive by it.
        """
        seconds = min(workers * self.cost_seconds, _MAX_SPREAD_SECONDS, timeout_seconds / 2)
        return seconds if seconds >= _MIN_SPREAD_SECONDS else 0.0
