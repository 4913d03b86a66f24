"""``LongHistory`` of ``master.history.ports``: a Prometheus, asked in its own threads, left alone while it is away."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from fleetpulse.master.errors import PrometheusUnavailable
from fleetpulse.master.history.window import Series, Values, Window
from fleetpulse.master.prometheus.client import PrometheusClient, RangeSeries
from fleetpulse.master.prometheus.promql import STATS, query_for

THREADS = 2
AWAY_SECONDS = 15.0
"""For so long after a failure nobody is made to wait for another."""

_GRACE_SECONDS = 1.0

_Found = Mapping[str, Series]


class PrometheusHistory:
    """Made, asked and closed on the hub."""

    def __init__(
        self,
        client: PrometheusClient,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._clock, self._wall = client, clock, wall
        self._pool = ThreadPool(THREADS)
        self._asking = 0
        self._away: tuple[float, str] | None = None

    def read(self, worker_id: str, window: Window, fields: Sequence[str]) -> _Found:
        """See ``LongHistory``."""
        if self._away is not None and self._clock() < self._away[0]:
            raise PrometheusUnavailable(self._away[1])
        if self._asking >= THREADS:
            raise PrometheusUnavailable("Prometheus is being asked by others")
        self._asking += 1
        asked = self._pool.spawn(self._ask, worker_id, window, fields)
        asked.rawlink(self._has_answered)
        try:
            found = self._answer(asked)
        except PrometheusUnavailable as error:
            self._away = (self._clock() + AWAY_SECONDS, str(error))
            raise
        self._away = None
        return found

    def _answer(self, asked: "AsyncResult[_Found | PrometheusUnavailable]") -> _Found:
        seconds = self._client.seconds + _GRACE_SECONDS
        asked.wait(timeout=seconds)
        if not asked.ready():  # its thread is busy with it, and counts for as long as it is
            raise PrometheusUnavailable(f"Prometheus has not answered within {seconds:g} s")
        found = asked.get()
        assert found is not None  # nosec B101 # for the type checker
        if isinstance(found, PrometheusUnavailable):
            raise found
        return found

    def close(self) -> None:
        """End the threads, when what they ask is answered or over."""
        self._pool.kill()

    def _has_answered(self, _: object) -> None:
        self._asking -= 1

    def _ask(self, worker_id: str, window: Window, fields: Sequence[str]) -> _Found | PrometheusUnavailable:
        """In a thread. An error is returned: gevent writes one that is raised to stderr, with its traceback."""
        try:
            return self._found(worker_id, window, fields)
        except PrometheusUnavailable as error:
            return error

    def _found(self, worker_id: str, window: Window, fields: Sequence[str]) -> _Found:
        """A point is of the time before the moment of its evaluation."""
        first = window.start + window.step
        # What is not over yet would be told too low, as far as rates go.
        last = min(window.stop, int(self._wall() // window.step) * window.step)
        found: Sequence[RangeSeries] = ()
        if last >= first:
            found = self._client.query_range(query_for(worker_id, fields, window.step), first, last, window.step)
        return _laid_out(found, window, fields)


def _laid_out(found: Sequence[RangeSeries], window: Window, fields: Sequence[str]) -> _Found:
    gaps: dict[tuple[str, str], Values] = {(field, stat): [None] * window.length for field in fields for stat in STATS}
    for labels, values in found:
        column = gaps.get((labels.get("field", ""), labels.get("stat", "")))
        for when, value in values if column is not None else ():
            place = round((when - window.start) / window.step) - 1
            if column is not None and 0 <= place < window.length and math.isfinite(value):
                column[place] = float(f"{value:.5g}")
    return {field: Series(*(gaps[field, stat] for stat in STATS)) for field in fields}
