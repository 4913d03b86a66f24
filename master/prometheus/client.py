"""``/api/v1/query_range`` with a deadline. Blocks: for a thread.

https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import requests
import urllib3

from fleetpulse.master.errors import PrometheusUnavailable

CONNECT_SECONDS = 2.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024

_PIECE_BYTES = 64 * 1024
_MAX_QUOTED = 200


class RangeSeries(NamedTuple):
    """``values`` are pairs of Unix seconds and the number."""

    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class PrometheusClient:
    """``url`` is where Prometheus has its root, with a path if it has one; ``seconds`` is for one answer."""

    def __init__(self, url: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = f"{url.rstrip('/')}/api/v1/query_range", clock
        self.seconds = seconds

    def query_range(self, promql: str, start: int, stop: int, step: int) -> Sequence[RangeSeries]:
        """Evaluate it at ``start`` and every ``step`` until ``stop``. Raises ``PrometheusUnavailable``."""
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
                # What the environment says of proxies and of .netrc is about the machine's user, not about this.
                session.trust_env = False
                timeouts = (min(CONNECT_SECONDS, self.seconds), self.seconds)
                with session.post(self._url, data=form, timeout=timeouts, stream=True, allow_redirects=False) as answer:
                    return _series(answer.status_code, self._body(answer, deadline))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise PrometheusUnavailable(f"Prometheus does not answer: {_why(error)}") from error

    def _body(self, answer: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        # Not iter_content: that returns when it has all it was asked for, however slowly that comes.
        while piece := answer.raw.read1(_PIECE_BYTES, decode_content=True):
            body += piece
            if self._clock() > deadline:
                raise PrometheusUnavailable(f"Prometheus has not answered within {self.seconds:g} s")
            if len(body) > MAX_ANSWER_BYTES:
                raise PrometheusUnavailable(f"Prometheus answered more than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)


def _series(status: int, body: bytes) -> Sequence[RangeSeries]:
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


def _why(error: Exception) -> str:
    """In few words, without the URL, which may hold a password."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
