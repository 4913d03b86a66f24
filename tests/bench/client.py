"""The HTTP client of the benchmark, the same for the master and its peers.

While the clock runs it only receives bytes. Chunks are joined and gzip is decompressed afterwards, so that the framing
of a server does not count.
"""

import gzip
import json
import math
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.bench.processes import BenchError
from tests.ports import LOCALHOST

PLAIN_TEXT = "text/plain;version=0.0.4"
AS_PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

_TIMEOUT_SECONDS = 120.0
_RECEIVE_BYTES = 1 << 20


class Answer(NamedTuple):
    """The response to a request on its own connection."""

    status: int
    body: bytes
    """Without chunk headers, decompressed."""

    sent_bytes: int
    """The size of the body on the wire."""

    seconds: float
    """From before connect until the last byte."""


class RepeatedFetch(NamedTuple):
    """The times of a repeated request, and its last answer."""

    seconds: list[float]
    last: Answer


def fetch(port: int, path: str, *, accept: str = "*/*", packed: bool = False) -> Answer:
    """Sends a GET. Raises ``OSError`` when nothing answers."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {LOCALHOST}:{port}\r\nConnection: close\r\nAccept: {accept}\r\n"
        f"Accept-Encoding: {'gzip' if packed else 'identity'}\r\n\r\n"
    ).encode()
    started = time.perf_counter()
    parts = []
    with socket.create_connection((LOCALHOST, port), _TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        while part := connection.recv(_RECEIVE_BYTES):
            parts.append(part)
    seconds = time.perf_counter() - started
    return _answer(b"".join(parts), seconds)


def fetch_json(port: int, path: str) -> Any:
    """Sends a GET and parses the JSON. Raises ``BenchError`` for any status but 200."""
    answer = fetch(port, path)
    if answer.status != 200:
        raise BenchError(f"GET {path}: {answer.status} {answer.body[:200]!r}")
    return json.loads(answer.body)


def fetch_repeatedly(
    port: int, path: str, at_most: int, *, packed: bool = False, budget_seconds: float = 20.0
) -> RepeatedFetch:
    """Fetches with pauses of 0.1 s until the time is up, at least 5 times."""
    deadline = time.monotonic() + budget_seconds
    seconds: list[float] = []
    while True:
        answer = fetch(port, path, accept=PLAIN_TEXT, packed=packed)
        if answer.status != 200:
            raise BenchError(f"GET {path} of port {port}: {answer.status}")
        seconds.append(answer.seconds)
        if len(seconds) >= at_most or (len(seconds) >= 5 and time.monotonic() > deadline):
            return RepeatedFetch(seconds, answer)
        time.sleep(0.1)


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by nearest rank, which is one of the values."""
    ranked = sorted(values)
    return ranked[max(math.ceil(len(ranked) * percent / 100.0), 1) - 1]


def _answer(raw: bytes, seconds: float) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    if len(body) != int(headers.get("content-length", len(body))):
        raise BenchError(f"an answer was cut off after {len(body)} bytes")
    unpacked = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
    return Answer(int(status_line.split()[1]), unpacked, len(body), seconds)


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end_of_size = body.index(b"\r\n", at)
        size = int(body[at:end_of_size].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        at = end_of_size + 2
        parts.append(body[at : at + size])
        at += size + 2
