"""When a view will be read next, judged by when it was read before. Pure: the caller brings the time.

Scrapers and dashboards read in a rhythm. Between two reads of one who comes every 15 s each worker beats three times,
and only the last counts, so there is time until shortly before the next read.
"""

from collections import deque

DEMAND_SECONDS = 90.0
"""How long a read keeps a view in demand: longer than a scraper or a person who watches waits between two."""

LEAD_SECONDS = 1.0
"""Before a read is expected: time to render a whole fleet, and for a reader who comes early."""

_PAUSES = 3
"""The shortest of so many is expected again, so up to that many readers may share a view."""


class Demand:
    """Who reads a view, and how often. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._pauses: deque[float] = deque(maxlen=_PAUSES)

    def note_read(self, now: float) -> None:
        """The view is read."""
        if self.exists(now) and self._read_at is not None:
            self._pauses.append(now - self._read_at)
        else:
            self._pauses.clear()
        self._read_at = now

    def exists(self, now: float) -> bool:
        """Whether somebody still reads the view now and then."""
        return self._read_at is not None and now - self._read_at < DEMAND_SECONDS

    def quiet_seconds(self, now: float) -> float:
        """For how long nobody is expected yet; 0 when the next read is near, or when there is no rhythm to go by."""
        if self._read_at is None or not self._pauses or not self.exists(now):
            return 0.0
        return max(self._read_at + min(self._pauses) - LEAD_SECONDS - now, 0.0)
