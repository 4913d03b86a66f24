"""The middleware of every request: metrics, compression, and fairness between connections."""

import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import falcon
import gevent
from isal import isal_zlib

from fleetpulse.master.instruments import Instruments

MIN_COMPRESSED_BYTES = 1400
"""A smaller answer fits into one packet anyway."""

_UNROUTED = "(none)"
_PIECE_BYTES = 64 * 1024


class RequestMetrics:
    """Counts and times every answer by route. The route is the template, so a scan of random paths adds no series."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        req.context.started = time.perf_counter()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        route = req.uri_template or _UNROUTED
        method = req.method if req.method in falcon.HTTP_METHODS else "(other)"
        self._instruments.http.requests.labels(route, method, str(resp.status_code)).inc()
        self._instruments.http.request_duration.labels(route).observe(time.perf_counter() - req.context.started)


class Compression:
    """Compresses answers by gzip, in a native thread: a fleet's answer would stop the hub for a tenth of a second."""

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        parts = _parts(resp)
        if sum(map(len, parts)) < MIN_COMPRESSED_BYTES:
            return
        resp.append_header("Vary", "Accept-Encoding")
        if accepts_gzip(req.get_header("Accept-Encoding") or ""):
            resp.stream = None
            resp.data = gevent.get_hub().threadpool.apply(_gzip, (parts,))
            resp.content_length = len(resp.data)
            resp.set_header("Content-Encoding", "gzip")


class Fairness:
    """Lets other greenlets run between two requests of one connection.

    A connection whose next request is always there already would be served without a switch, and starve the others.
    """

    def __init__(self) -> None:
        self._served: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """By greenlet, which is a connection, the iteration of the hub's loop in which it was last served."""

    def process_request(self, _req: falcon.Request, _resp: falcon.Response) -> None:
        if self._served.get(gevent.getcurrent()) == gevent.get_hub().loop.iteration:
            gevent.sleep(0)

    def process_response(self, _req: falcon.Request, _resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        self._served[gevent.getcurrent()] = gevent.get_hub().loop.iteration


def accepts_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110, 12.5.3)."""
    quality_by_coding = {}
    for item in header.lower().split(","):
        coding, _, parameter = item.partition(";")
        name, _, quality = parameter.partition("=")
        try:
            quality_by_coding[coding.strip()] = float(quality) if name.strip() == "q" else 1.0
        except ValueError:
            quality_by_coding[coding.strip()] = 0.0
    return quality_by_coding.get("gzip", quality_by_coding.get("*", 0.0)) > 0.0


def _parts(resp: falcon.Response) -> list[bytes]:
    """The pieces of the answer's body; none of one that is streamed."""
    if resp.data is not None:
        return [resp.data]
    return resp.stream if isinstance(resp.stream, list) else []


def _gzip(parts: list[bytes]) -> bytes:
    compressor = isal_zlib.compressobj(level=1, wbits=isal_zlib.MAX_WBITS + 16)
    return b"".join([*map(compressor.compress, _pieces(parts)), compressor.flush()])


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    """Joins small parts: ISA-L compresses badly all that follows a small one."""
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    yield b"".join(piece)
