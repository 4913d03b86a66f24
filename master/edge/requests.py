"""Limits on requests: their rate per client, and what is left of a body when its answer is on the way.

gunicorn would read the rest of a body, however large, a KiB at a time and without letting other greenlets run.
"""

from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidChunkSize, ParseException

MAX_CLIENTS = 10_000
"""In each of a rate limiter's two generations."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""Of a body that nobody read; a connection with more to come is closed instead."""

MAX_CHUNKS = 4096
"""Per body. Each costs some 20 microseconds, even one of one byte."""

DISCARD_SECONDS = 2.0
_CHUNKS_PER_TURN = 16
_PIECE_BYTES = 64 * 1024


class RateLimiter:
    """A token bucket per client: ``per_second`` tokens come back, up to ``burst``; a request takes one. All on the hub.

    A client that has been away for as long as an empty bucket takes to fill is like a new one, so two generations of
    buckets are enough. With more clients than they hold, some get a full bucket too early; none is refused wrongly.
    """

    def __init__(self, per_second: float, burst: float, max_clients: int = MAX_CLIENTS) -> None:
        self._per_second, self._burst = per_second, burst
        self._max_clients = max_clients
        self._fill_seconds = burst / per_second
        self._generation_began = 0.0
        self._current: dict[str, tuple[float, float]] = {}
        """Tokens, and the time at which there were so many."""

        self._previous: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

    def allow(self, client: str, now: float) -> bool:
        """Takes a token if there is one; ``now`` is of the monotonic clock."""
        if now - self._generation_began > self._fill_seconds or len(self._current) >= self._max_clients:
            self._previous, self._current, self._generation_began = self._current, {}, now
        bucket = self._current.get(client)
        if bucket is None:
            bucket = self._previous.pop(client, (self._burst, now))
        tokens, since = bucket
        tokens = min(tokens + (now - since) * self._per_second, self._burst)
        allowed = tokens >= 1.0
        self._current[client] = (tokens - 1.0 if allowed else tokens), now
        return allowed


class MissingHost(ParseException):
    """The request does not say for which host it is."""


class LimitedChunkedReader(ChunkedReader):
    """Limits the number of chunks, and lets other greenlets run between them."""

    def __init__(self, req: Any, unreader: Any) -> None:
        super().__init__(req, unreader)
        self._chunks = 0

    def parse_chunk_size(self, unreader: Any, data: bytes | None = None) -> Any:
        """Called by gunicorn before each chunk."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise InvalidChunkSize(b"of too many chunks")
        if self._chunks % _CHUNKS_PER_TURN == 0:
            gevent.sleep(0)
        return super().parse_chunk_size(unreader, data)


def limit_chunks(req: Any) -> None:
    """To be called before anything of the request's body is read."""
    if isinstance(req.body.reader, ChunkedReader):
        req.body = Body(LimitedChunkedReader(req, req.unreader))


def check_host(req: Any) -> None:
    """Raises ``MissingHost`` for a request of HTTP/1.1 that says no host (RFC 9112, 3.2)."""
    if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
        raise MissingHost("a request of HTTP/1.1 must have a Host header")


def has_unread_body(body: Any) -> bool:
    """Returns whether part of the body may still be on its way."""
    reader = body.reader
    if isinstance(reader, LengthReader):
        return reader.length > 0
    return isinstance(reader, ChunkedReader) and reader.parser is not None


def is_too_long(body: Any) -> bool:
    """Returns whether the body declares more than would be discarded."""
    return isinstance(body.reader, LengthReader) and body.reader.length > MAX_DISCARDED_BYTES


def discard(body: Any) -> bool:
    """Reads the rest of the body, within limits; returns whether that was all of it."""
    if not has_unread_body(body):
        return True
    if body.failed or is_too_long(body):
        return False
    taken = 0
    with suppress(OSError, ParseException), gevent.Timeout(DISCARD_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
        while taken < MAX_DISCARDED_BYTES and (data := body.read(_PIECE_BYTES)):
            taken += len(data)
    return not has_unread_body(body)
