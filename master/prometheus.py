"""A Prometheus that scrapes this master, as a source of history.

It is asked in threads of its own, and left alone for some seconds after a failure.
https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson
import requests
import urllib3
from gevent.threadpool import ThreadPool

from fleetpulse.master.errors import PrometheusUnavailable
from fleetpulse.master.history.fields import FIELD_BY_NAME, Gauge, Rate
from fleetpulse.master.history.points import Series, Values, Window, rounded

CONNECT_SECONDS = 2.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
THREADS = 2
RETRY_SECONDS = 15.0
"""For so long after a failure requests fail at once."""

RATE_SECONDS = 60
"""The shortest time over which a rate is taken: Prometheus needs two scrapes in it, and better four."""

MAX_INNER_POINTS = 60
"""How often an expression is evaluated within one step, at most."""

STATS = ("mean", "min", "max")

_OVER_TIME = {"mean": "avg_over_time", "min": "min_over_time", "max": "max_over_time"}
_GRACE_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024
_MAX_QUOTED = 200

_Found = Mapping[str, Series]


class RangeSeries(NamedTuple):
    """``values`` are pairs of Unix seconds and the number."""

    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class PrometheusClient:
    """Asks ``/api/v1/query_range`` under ``url``, with a deadline of ``seconds``. Blocks: for a thread."""

    def __init__(self, url: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = f"{url.rstrip('/')}/api/v1/query_range", clock
        self.seconds = seconds

    def query_range(self, promql: str, start: int, stop: int, step: int) -> Sequence[RangeSeries]:
        """Evaluates the query at ``start`` and every ``step`` until ``stop``. Raises ``PrometheusUnavailable``."""
        deadline = self._clock() + self.seconds
        form = {
            "query": promql,
            "start": str(start),
            "end": str(stop),
            "step": str(step),
            "timeout": f"{self.seconds:g}s",
        }
        try:
            with requests.Session() as session:
                # Proxies and .netrc of the environment are those of the machine's user.
                session.trust_env = False
                timeouts = (min(CONNECT_SECONDS, self.seconds), self.seconds)
                with session.post(self._url, data=form, timeout=timeouts, stream=True, allow_redirects=False) as answer:
                    return _parse(answer.status_code, self._body(answer, deadline))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise PrometheusUnavailable(f"Prometheus does not answer: {_reason(error)}") from error

    def _body(self, answer: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        # Not iter_content: it returns only when it has all that it was asked for, however slowly that comes.
        while piece := answer.raw.read1(_PIECE_BYTES, decode_content=True):
            body += piece
            if self._clock() > deadline:
                raise PrometheusUnavailable(f"Prometheus has not answered within {self.seconds:g} s")
            if len(body) > MAX_ANSWER_BYTES:
                raise PrometheusUnavailable(f"Prometheus answered more than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)


def _parse(status: int, body: bytes) -> Sequence[RangeSeries]:
    try:
        answer: Any = orjson.loads(body)
        if answer["status"] != "success":
            raise PrometheusUnavailable(f"Prometheus refused: {str(answer.get('error'))[:_MAX_QUOTED]}")
        return [
            RangeSeries(one["metric"], [(float(time), float(value)) for time, value in one["values"]])
            for one in answer["data"]["result"]
        ]
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise PrometheusUnavailable(f"what answers is no Prometheus: status {status}") from error


def _reason(error: Exception) -> str:
    """Without the URL, which may hold a password."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


class PrometheusHistory:
    """The ``PrometheusSource`` of ``HistoryService``. Created, used and closed on the hub."""

    def __init__(
        self,
        client: PrometheusClient,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._clock, self._wall = client, clock, wall
        self._pool = ThreadPool(THREADS)
        self._running = 0
        self._unavailable_until: tuple[float, str] | None = None

    def read(self, worker_id: str, window: Window, fields: Sequence[str]) -> _Found:
        """See ``PrometheusSource``."""
        if self._unavailable_until is not None and self._clock() < self._unavailable_until[0]:
            raise PrometheusUnavailable(self._unavailable_until[1])
        if self._running >= THREADS:
            raise PrometheusUnavailable("Prometheus is being asked by others")
        self._running += 1
        answer = self._pool.spawn(self._run, worker_id, window, fields)
        answer.rawlink(self._on_done)
        seconds = self._client.seconds + _GRACE_SECONDS
        answer.wait(timeout=seconds)
        # One that is not ready has its thread still, and counts for as long as it does.
        late = PrometheusUnavailable(f"Prometheus has not answered within {seconds:g} s")
        found = answer.get() if answer.ready() else late
        if isinstance(found, PrometheusUnavailable):
            self._unavailable_until = (self._clock() + RETRY_SECONDS, str(found))
            raise found
        self._unavailable_until = None
        return cast("_Found", found)

    def close(self) -> None:
        """Ends the threads, when what they run is answered or timed out."""
        self._pool.kill()

    def _on_done(self, _: object) -> None:
        self._running -= 1

    def _run(self, worker_id: str, window: Window, fields: Sequence[str]) -> _Found | PrometheusUnavailable:
        """In a thread. Returns an error rather than raise it: gevent would write it to stderr, with its traceback."""
        first = window.start + window.step  # a point is of the step before the moment of its evaluation
        # Rates of a step that is not over would be too low.
        last = min(window.stop, int(self._wall() // window.step) * window.step)
        found: Sequence[RangeSeries] = ()
        try:
            if last >= first:
                found = self._client.query_range(query_for(worker_id, fields, window.step), first, last, window.step)
        except PrometheusUnavailable as error:
            return error
        return _to_series(found, window, fields)


def _to_series(found: Sequence[RangeSeries], window: Window, fields: Sequence[str]) -> _Found:
    columns: dict[tuple[str, str], Values] = {
        (field, stat): [None] * window.length for field in fields for stat in STATS
    }
    for labels, values in found:
        column = columns.get((labels.get("field", ""), labels.get("stat", "")))
        for when, value in values if column is not None else ():
            place = round((when - window.start) / window.step) - 1
            if column is not None and 0 <= place < window.length and math.isfinite(value):
                column[place] = rounded(value)
    return {field: Series(*(columns[field, stat] for stat in STATS)) for field in fields}


def query_for(worker_id: str, fields: Sequence[str], step: int) -> str:
    """Returns one expression with a series for each field and statistic, in the labels ``field`` and ``stat``.

    ``worker_id`` obeys the rule for ids, so nothing in it needs escaping. The series of one master may come under
    several jobs and instances; ``max`` makes them one again.
    """
    selector = f'{{worker_id="{worker_id}"}}'
    return " or ".join(
        f'label_replace(label_replace({_stat(FIELD_BY_NAME[name], selector, stat, step)}, "field", "{name}", "", ""), '
        f'"stat", "{stat}", "", "")'
        for name in fields
        for stat in STATS
    )


def _stat(field: Gauge | Rate, selector: str, stat: str, step: int) -> str:
    if isinstance(field, Gauge):
        expression = re.sub(r"\{(\w+)\}", rf"fleetpulse_worker_\1{selector}", field.promql)
    else:
        seconds = max(step, RATE_SECONDS) if stat == "mean" else RATE_SECONDS
        series = f"fleetpulse_worker_{field.counter}{selector}"
        expression = f"sum(max by ({field.label}) (rate({series}[{seconds}s])))"
        if stat == "mean":
            return expression
    # Within the step alone: in Prometheus 2 a range includes its first moment, which is of the step before.
    inner = max(5, step // MAX_INNER_POINTS)
    return f"{_OVER_TIME[stat]}(({expression})[{1000 * step - 1}ms:{inner}s])"
