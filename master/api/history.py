"""``/telemetry/{worker_id}/history``: a worker's readings over time."""

import time
from collections.abc import Callable
from typing import Annotated, Literal

import falcon
import gevent
from msgspec import field
from pydantic import Field

from fleetpulse.master.api.answers import ResponseModel, UnixSeconds, encoded, send_json
from fleetpulse.master.api.problems import FieldProblem, InvalidRequest
from fleetpulse.master.api.queries import MomentText, Names, Number, Query, check_worker_id, moment, rule
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.history.fields import FIELD_BY_NAME
from fleetpulse.master.history.service import MAX_POINTS, MAX_STEP, HistoryAnswer, HistoryRequest, HistoryService

MIN_STEP = 15
LONGEST_SECONDS = 5 * 366 * 86_400
"""How far back a history may be asked for."""

_SKEW_SECONDS = 60
"""A client's clock may be ahead by so much."""


_FieldName = Annotated[
    str,
    Field(json_schema_extra={"enum": list(FIELD_BY_NAME)}),
    rule(FIELD_BY_NAME.__contains__, f"one of {', '.join(FIELD_BY_NAME)}"),
]


class HistoryQuery(Query):
    """``GET /telemetry/{worker_id}/history``."""

    start: Annotated[MomentText, Field(alias="from")] = "-1h"
    """Where it begins: Unix seconds, RFC 3339 with a time zone, or before now as `-90s`, `-15m`, `-1h`, `-7d`."""
    to: MomentText = "now"
    """Where it ends, said alike, or `now`."""
    step: Annotated[int | None, Field(ge=MIN_STEP, le=MAX_STEP), Number] = None
    """Seconds between two points, rounded up to what there is; if not given, it suits the length."""
    fields: Annotated[list[_FieldName], Names] = list(FIELD_BY_NAME)  # noqa: RUF012 - pydantic copies it
    """One or more, repeated or with commas between; if there is none, all."""


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

    def __init__(self, history: HistoryService, clock: Callable[[], float] = time.time) -> None:
        self._history, self._clock = history, clock

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query = query_of(req, HistoryQuery)
        check_worker_id(worker_id)
        start, stop = _span(query, self._clock())
        step = None if query.step is None else self._history.rounded_step(query.step)
        _check_step(step, stop - start)
        answer = self._history.read(worker_id, HistoryRequest(start, stop, step, query.fields))
        body = gevent.get_hub().threadpool.apply(_body, (worker_id, answer))
        send_json(resp, body, cache_control="no-store")

    on_head = on_get


def _span(query: HistoryQuery, now: float) -> tuple[float, float]:
    """Returns from when to when, in Unix seconds, not after now. Raises ``InvalidRequest``."""
    start, stop = moment(query.start, now), moment(query.to, now)
    errors = []
    if stop > now + _SKEW_SECONDS:
        errors.append(FieldProblem("to", f"must not be after now, which is {now:.0f}", query.to))
    oldest = now - LONGEST_SECONDS
    if start < oldest:
        errors.append(FieldProblem("from", f"must be {oldest:.0f} at least, which is five years ago", query.start))
    if not errors and start >= stop:
        errors.append(FieldProblem("from", f"must be before to, which is {stop:.0f}", query.start))
    if errors:
        raise InvalidRequest(errors)
    return start, min(stop, now) if start < now else stop


def _check_step(step: int | None, seconds: float) -> None:
    """Raises ``InvalidRequest`` for a step that makes too many points of so many seconds."""
    if step is not None and seconds / step > MAX_POINTS:
        least = seconds / MAX_POINTS
        limit = f"must be at least {least:.0f} for that time: there are {MAX_POINTS} points at most"
        raise InvalidRequest([FieldProblem("step", limit, step)])


def _body(worker_id: str, answer: HistoryAnswer) -> bytes:
    """The JSON. Runs in a thread: it may be some hundred thousand numbers."""
    window = answer.window
    fields = {
        name: FieldHistory(FIELD_BY_NAME[name].unit, series.mean, series.low, series.high)
        for name, series in answer.series.items()
    }
    return encoded(History(worker_id, window.start, window.stop, window.step, answer.source, answer.warning, fields))
