"""The middleware of every request: metrics, compression, fairness between connections, and the audit trail."""

import re
import struct
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import falcon
import gevent
import msgspec
from isal import isal_zlib

from fleetpulse.master.access.tokens import Identity
from fleetpulse.master.api.operations import Route
from fleetpulse.master.api.problems import Problem
from fleetpulse.master.audit.entries import ANONYMOUS, AuditEntry, AuditOutcome, Record
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.lazy_view import SteadyBytes

MIN_COMPRESSED_BYTES = 1400
"""A smaller answer fits into one packet anyway."""

_UNROUTED = "(none)"
PIECE_BYTES = 64 * 1024
"""What is sent, or compressed, at a time, at least."""

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Refused for who or what the caller is, not for what it says; a ``Rejection`` is a refusal as well."""

_NO_ACTION = "(none)"


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


class ExactPaths:
    """A path is found only as it is written: ``//telemetry`` and ``/api%2Ftasks`` are none.

    A proxy in front reads such paths in its own way, and could let through what it should stop.
    """

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Raises 404. Runs before the route is looked up."""
        path = req.env.get("RAW_URI", "").partition("?")[0].lower()
        if "//" in req.path or "%2f" in path or "%5c" in path:
            raise falcon.HTTPRouteNotFound


class Compression:
    """Compresses answers by gzip, in a native thread: a fleet's answer would stop the hub for a tenth of a second.

    An answer in pieces is a list of bytes in ``resp.stream``. It is sent without being joined, which would copy it once
    more; but small pieces are, because each takes a call of the system.
    """

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        parts = _parts(resp)
        size = sum(map(len, parts))
        is_compressed = size >= MIN_COMPRESSED_BYTES and accepts_gzip(req.get_header("Accept-Encoding") or "")
        if size >= MIN_COMPRESSED_BYTES:
            resp.append_header("Vary", "Accept-Encoding")
        if is_compressed:
            resp.stream = None
            resp.data = gevent.get_hub().threadpool.apply(gzipped, (parts,))
            resp.content_length = len(resp.data)
            resp.set_header("Content-Encoding", "gzip")
        elif isinstance(resp.stream, list):
            resp.stream = joined_pieces(parts)
            resp.content_length = size


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


class _Deflated(NamedTuple):
    """Blocks of DEFLATE that refer to nothing before them and end at a whole byte, so that they can be put in a row."""

    blocks: bytes
    crc: int
    """CRC-32 of what was compressed."""


_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LAST_BLOCK = b"\x03\x00"
"""Empty."""

_COMPRESSED_AT_ONCE = 512 * 1024
"""Of small pieces together; 64 KiB compress to an eighth more."""


def gzipped(parts: list[bytes]) -> bytes:
    """One member (RFC 1952). What was compressed of a large ``SteadyBytes`` is kept with it for the next answer."""
    pieces = [_GZIP_HEADER]
    crc = size = 0
    for part in joined_pieces(parts, _COMPRESSED_AT_ONCE):
        deflated: _Deflated | None = None
        if isinstance(part, SteadyBytes):
            deflated = part.derived
            if deflated is None:
                deflated = part.derived = _deflated(part)
        deflated = deflated or _deflated(part)
        pieces.append(deflated.blocks)
        crc = isal_zlib.crc32_combine(crc, deflated.crc, len(part))
        size += len(part)
    return b"".join((*pieces, _LAST_BLOCK, struct.pack("<II", crc, size & 0xFFFFFFFF)))


def _deflated(part: bytes) -> _Deflated:
    compressor = isal_zlib.compressobj(level=1, wbits=-isal_zlib.MAX_WBITS)
    return _Deflated(compressor.compress(part) + compressor.flush(isal_zlib.Z_SYNC_FLUSH), isal_zlib.crc32(part))


def joined_pieces(parts: list[bytes], at_least: int = PIECE_BYTES) -> Iterator[bytes]:
    """Joins small parts: each takes a call of the system, and ISA-L compresses badly all that follows a small one.

    One by one, so that each is gone when it is sent and the next takes its place in memory.
    """
    small: list[bytes] = []
    size = 0
    for part in parts:
        is_large = len(part) >= PIECE_BYTES
        if not is_large:
            small.append(part)
            size += len(part)
        if size and (is_large or size >= at_least):
            yield b"".join(small)
            small, size = [], 0
        if is_large:
            yield part
    if size:
        yield b"".join(small)


class AuditMiddleware:
    """Records every request that could change something, and every refusal. Stands before all that refuses.

    It knows of a request only its first line, its connection and the status of its answer: no header, body or query is
    recorded.
    """

    def __init__(self, record: Record, routes: Sequence[Route]) -> None:
        self._record = record
        self._actions = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route.path))), operation.method, operation.name)
            # A path without fields goes before one that it would match too.
            for route in sorted(routes, key=lambda route: "{" in route.path)
            for operation in route.operations
        ]

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _ok: bool) -> None:
        rejection: str | None = getattr(req.context, "rejection", None)
        is_refused = rejection is not None or resp.status_code in _REFUSALS
        if req.method in _READ_METHODS and not is_refused:
            return
        detail = _problem_detail(resp) if is_refused else _status_title(resp)
        identity: Identity | None = getattr(req.context, "identity", None)
        made = resp.get_header("Location") if resp.status_code < HTTPStatus.MULTIPLE_CHOICES else None
        self._record(
            AuditEntry(
                actor=ANONYMOUS if identity is None else identity.name,
                role=None if identity is None else identity.role.name.lower(),
                source="page" if identity is not None and identity.auth_method == "session" else "http",
                client=req.remote_addr,
                action=self._action(req.method, req.path),
                target=made or req.path,
                outcome=AuditOutcome.REFUSED if is_refused else _outcome(resp.status_code),
                status=str(resp.status_code),
                detail=detail if rejection is None else f"{rejection}: {detail}",
            )
        )

    def _action(self, method: str, path: str) -> str:
        # The app has not routed a request that is refused early.
        method = "GET" if method == "HEAD" else method
        found = (name for pattern, takes, name in self._actions if takes == method and pattern.fullmatch(path))
        return next(found, _NO_ACTION)


def _outcome(status: int) -> AuditOutcome:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AuditOutcome.FAILED
    return AuditOutcome.REFUSED if status >= HTTPStatus.BAD_REQUEST else AuditOutcome.OK


def _problem_detail(resp: falcon.Response) -> str:
    """Returns the detail of a refusal's problem, which never repeats what was sent."""
    try:
        return msgspec.json.decode(resp.data or b"", type=Problem).detail
    except msgspec.DecodeError:
        return _status_title(resp)  # a page for people


def _status_title(resp: falcon.Response) -> str:
    title: str = falcon.code_to_http_status(resp.status_code).partition(" ")[2]
    return title if resp.status_code >= HTTPStatus.BAD_REQUEST else ""
