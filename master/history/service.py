"""Reads the history of a worker: from Prometheus where there is one, else from the store and what is not stored yet."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from fleetpulse.master.errors import HistoryOff, PrometheusUnavailable, UnknownWorker
from fleetpulse.master.history.ports import HistoryStore, LongHistory, Tier
from fleetpulse.master.history.recorder import Recorder
from fleetpulse.master.history.window import MAX_POINTS, Series, Window, aligned, automatic_step, rounded_step
from fleetpulse.master.instruments import Instruments

Source = Literal["store", "prometheus"]

_DEFAULT_LENGTHS = (15, 300)


class HistoryRequest(NamedTuple):
    """Unix seconds. ``step`` is one that the service has rounded, or ``None`` for the one that suits."""

    start: float
    stop: float
    step: int | None
    fields: Sequence[str]


class HistoryAnswer(NamedTuple):
    """``warning`` says what the reader should know of how it came about."""

    window: Window
    source: Source
    warning: str | None
    series: Mapping[str, Series]


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
        long_history: LongHistory | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._recorder, self._tiers = store, recorder, tuple(tiers)
        self._failures = instruments.history.prometheus_failures
        self._knows_worker, self._long_history, self._clock = knows_worker, long_history, clock

    def rounded_step(self, step: int) -> int:
        """The step that is answered when this one is asked for."""
        return rounded_step(step, [tier.step_seconds for tier in self._tiers] or _DEFAULT_LENGTHS)

    def read(self, worker_id: str, request: HistoryRequest) -> HistoryAnswer:
        """Wait for those fields. Raises ``UnknownWorker``, ``HistoryOff``, ``StoreUnavailable``, and, where only
        Prometheus has any, ``PrometheusUnavailable``."""
        if self._long_history is None:
            answer = self._from_store(worker_id, request, None)
        else:
            try:
                answer = self._from_prometheus(worker_id, request, self._long_history)
            except PrometheusUnavailable as error:
                self._failures.inc()
                if not self._tiers:
                    raise
                answer = self._from_store(worker_id, request, str(error))
        if _is_empty(answer.series) and not self._has_worker(worker_id):
            raise UnknownWorker(worker_id)
        return answer

    def _from_prometheus(self, worker_id: str, request: HistoryRequest, source: LongHistory) -> HistoryAnswer:
        step = request.step or automatic_step(request.stop - request.start, _DEFAULT_LENGTHS[0])
        window = aligned(request.start, request.stop, step)
        return HistoryAnswer(window, "prometheus", None, source.read(worker_id, window, request.fields))

    def _from_store(self, worker_id: str, request: HistoryRequest, warning: str | None) -> HistoryAnswer:
        if not self._tiers:
            raise HistoryOff("this master keeps no history: it was told --history-retention off")
        kept = [tier for tier in self._tiers if request.start >= self._clock() - tier.retention_seconds]
        shortest = (kept or self._tiers[-1:])[0].step_seconds
        step = request.step or automatic_step(request.stop - request.start, shortest)
        window = aligned(request.start, request.stop, step)
        tier = self._tier_for(window, kept)
        recent = self._recorder.recent(worker_id, tier.step_seconds)
        series = self._store.read(worker_id, tier.step_seconds, window, request.fields, recent)
        return HistoryAnswer(window, "store", warning, series)

    def _tier_for(self, window: Window, kept: Sequence[Tier]) -> Tier:
        """The shortest points that are there for the whole window, unless those are too many to be put together."""
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


def _is_empty(series: Mapping[str, Series]) -> bool:
    return all(value is None for one in series.values() for value in one.mean)
