"""``/telemetry/{worker_id}/history``: how the readings of a worker went."""

import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import falcon
import gevent
import orjson
from msgspec import field

from fleetpulse.master.api.answers import ResponseModel, UnixSeconds
from fleetpulse.master.api.history_query import HistoryQuery, check_length, span_of
from fleetpulse.master.api.queries import check_worker_id, query_of
from fleetpulse.master.history.fields import FIELD_BY_NAME
from fleetpulse.master.history.service import HistoryAnswer, HistoryRequest


class HistoryReader(Protocol):
    """``master.history.service`` as REST sees it."""

    def rounded_step(self, step: int) -> int:
        """The step that is answered when this one is asked for."""
        ...

    def read(self, worker_id: str, request: HistoryRequest) -> HistoryAnswer:
        """Wait for the history of a worker. Raises ``UnknownWorker``, ``HistoryOff``, ``StoreUnavailable``,
        ``PrometheusUnavailable``."""
        ...


class FieldHistory(ResponseModel):
    """One field. The lists are of one length; `null` is a gap."""

    unit: str
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]


class History(ResponseModel):
    """The history of a worker. Point `i` is of the time from `from + i * step` until one step later."""

    worker_id: str
    start: UnixSeconds = field(name="from")
    to: UnixSeconds
    step: int
    """Seconds."""
    source: Literal["store", "prometheus"]
    warning: str | None
    """Why it is not as good as it could be: Prometheus does not answer."""
    fields: dict[str, FieldHistory]


class WorkerHistory:
    """The resource."""

    def __init__(self, history: HistoryReader, clock: Callable[[], float] = time.time) -> None:
        self._history, self._clock = history, clock

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query = query_of(req, HistoryQuery)
        check_worker_id(worker_id)
        span = span_of(query, self._clock())
        step = None if query.step is None else self._history.rounded_step(query.step)
        check_length(span, step)
        answer = self._history.read(worker_id, HistoryRequest(span.start, span.stop, step, query.fields))
        resp.cache_control = ("no-store",)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = gevent.get_hub().threadpool.apply(_encoded, (worker_id, answer))

    on_head = on_get


def history_resources(history: HistoryReader) -> dict[str, object]:
    """What answers at each path."""
    return {"/telemetry/{worker_id}/history": WorkerHistory(history)}


def _encoded(worker_id: str, answer: HistoryAnswer) -> bytes:
    """In a thread: it may be some hundred thousand numbers."""
    window = answer.window
    fields: dict[str, Any] = {
        name: {"unit": FIELD_BY_NAME[name].unit, "mean": series.mean, "min": series.low, "max": series.high}
        for name, series in answer.series.items()
    }
    return orjson.dumps(
        {
            "worker_id": worker_id,
            "from": window.start,
            "to": window.stop,
            "step": window.step,
            "source": answer.source,
            "warning": answer.warning,
            "fields": fields,
        }
    )
