"""Reads the history of a worker: from Prometheus where there is one, else from the store and the recorder."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from fleetpulse.master.errors import HistoryOff, PrometheusUnavailable, UnknownWorker
from fleetpulse.master.history.points import Series, Window
from fleetpulse.master.history.recorder import HistoryStore, Recorder
from fleetpulse.master.history.series_writer import Tier
from fleetpulse.master.instruments import Instruments

Source = Literal["store", "prometheus"]

AUTOMATIC_POINTS = 1_000
MAX_POINTS = 6_000
MAX_STEP = 86_400

_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_DEFAULT_LENGTHS = (15, 300)


class HistoryRequest(NamedTuple):
    """Unix seconds. ``step`` is from ``HistoryService.rounded_step``; ``None``: the service chooses."""

    start: float
    stop: float
    step: int | None
    fields: Sequence[str]


class HistoryAnswer(NamedTuple):
    """``warning`` is why the answer is not as good as it could be."""

    window: Window
    source: Source
    warning: str | None
    series: Mapping[str, Series]


class PrometheusSource(Protocol):
    """A Prometheus that scrapes this master."""

    def read(self, worker_id: str, window: Window, fields: Sequence[str]) -> Mapping[str, Series]:
        """Waits for those fields of a worker. Raises ``PrometheusUnavailable``."""
        ...


class HistoryService:
    """Called on the hub; ``read`` waits. ``knows_worker`` says whether a worker is in the live table.

    Without ``tiers`` nothing is recorded.
    """

    def __init__(
        self,
        store: HistoryStore,
        recorder: Recorder,
        tiers: Sequence[Tier],
        instruments: Instruments,
        knows_worker: Callable[[str], bool],
        prometheus: PrometheusSource | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._recorder, self._tiers = store, recorder, tuple(tiers)
        self._prometheus_failures = instruments.history.prometheus_failures
        self._knows_worker, self._prometheus, self._clock = knows_worker, prometheus, clock

    def rounded_step(self, step: int) -> int:
        """Returns the step of the answer to a request for this one."""
        return round_step(step, [tier.step_seconds for tier in self._tiers] or _DEFAULT_LENGTHS)

    def read(self, worker_id: str, request: HistoryRequest) -> HistoryAnswer:
        """Waits for those fields. Raises ``UnknownWorker``, ``HistoryOff``, ``StoreUnavailable``, and, where only
        Prometheus has any, ``PrometheusUnavailable``."""
        if self._prometheus is None:
            answer = self._read_store(worker_id, request, None)
        else:
            try:
                answer = self._read_prometheus(worker_id, request, self._prometheus)
            except PrometheusUnavailable as error:
                self._prometheus_failures.inc()
                if not self._tiers:
                    raise
                answer = self._read_store(worker_id, request, str(error))
        is_empty = all(value is None for series in answer.series.values() for value in series.mean)
        if is_empty and not self._has_worker(worker_id):
            raise UnknownWorker(worker_id)
        return answer

    def _read_prometheus(self, worker_id: str, request: HistoryRequest, source: PrometheusSource) -> HistoryAnswer:
        step = request.step or automatic_step(request.stop - request.start, _DEFAULT_LENGTHS[0])
        window = align(request.start, request.stop, step)
        return HistoryAnswer(window, "prometheus", None, source.read(worker_id, window, request.fields))

    def _read_store(self, worker_id: str, request: HistoryRequest, warning: str | None) -> HistoryAnswer:
        if not self._tiers:
            raise HistoryOff("this master keeps no history: it was told --history-retention off")
        kept = [tier for tier in self._tiers if request.start >= self._clock() - tier.retention_seconds]
        shortest = (kept or self._tiers[-1:])[0].step_seconds
        step = request.step or automatic_step(request.stop - request.start, shortest)
        window = align(request.start, request.stop, step)
        tier = self._tier_for(window, kept)
        recent = self._recorder.recent(worker_id, tier.step_seconds)
        series = self._store.read(worker_id, tier.step_seconds, window, request.fields, recent)
        return HistoryAnswer(window, "store", warning, series)

    def _tier_for(self, window: Window, kept: Sequence[Tier]) -> Tier:
        """Returns the shortest tier that has the whole window, unless it has too many points of it."""
        fitting = [tier for tier in self._tiers if window.step % tier.step_seconds == 0] or list(self._tiers[:1])
        seconds = window.stop - window.start
        for tier in fitting:
            if tier in kept and seconds / tier.step_seconds <= MAX_POINTS:
                return tier
        return fitting[-1]

    def _has_worker(self, worker_id: str) -> bool:
        if self._knows_worker(worker_id) or self._recorder.knows_worker(worker_id):
            return True
        return bool(self._tiers) and self._store.has_worker(worker_id)


def align(start: float, stop: float, step: int) -> Window:
    """Widens the time to whole steps; at least one."""
    first = math.floor(start / step)
    return Window(first * step, max(math.ceil(stop / step), first + 1) * step, step)


def automatic_step(seconds: float, at_least: int) -> int:
    """Returns the shortest usual step that makes no more than ``AUTOMATIC_POINTS``."""
    for step in _STEPS:
        if step >= at_least and seconds / step <= AUTOMATIC_POINTS:
            return step
    days = math.ceil(seconds / AUTOMATIC_POINTS / MAX_STEP)
    return days * MAX_STEP


def round_step(step: int, lengths: Sequence[int]) -> int:
    """Rounds up to a multiple of the largest of ``lengths``, which grow, that is no longer than the step."""
    unit = max([length for length in lengths if length <= step], default=lengths[0])
    return math.ceil(step / unit) * unit
