"""What is left of a request's body when its answer is on the way.

gunicorn would take the rest of it, however much that is, a KiB at a time and without letting others have their turn.
"""

from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidChunkSize, ParseException

MAX_LEFT_BYTES = 1024 * 1024
"""More is not taken: the connection ends instead."""

MAX_CHUNKS = 4096
"""Of a body. Each costs some 20 microseconds, be it of one byte."""

FINISH_SECONDS = 10.0
_CHUNKS_A_TURN = 16
_PIECE_BYTES = 64 * 1024


class FewChunks(ChunkedReader):
    """Others have their turn between its chunks, of which there may not be any number."""

    def __init__(self, req: Any, unreader: Any) -> None:
        super().__init__(req, unreader)
        self._chunks = 0

    def parse_chunk_size(self, unreader: Any, data: bytes | None = None) -> Any:
        """Called by gunicorn before each chunk."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise InvalidChunkSize(b"of too many chunks")
        if self._chunks % _CHUNKS_A_TURN == 0:
            gevent.sleep(0)
        return super().parse_chunk_size(unreader, data)


def limit_chunks(req: Any) -> None:
    """Before anything of the request's body is read."""
    if isinstance(req.body.reader, ChunkedReader):
        req.body = Body(FewChunks(req, req.unreader))


def is_unread(body: Any) -> bool:
    """Whether something of the body may still be on its way."""
    reader = body.reader
    if isinstance(reader, LengthReader):
        return reader.length > 0
    return isinstance(reader, ChunkedReader) and reader.parser is not None


def is_long(body: Any) -> bool:
    """Whether the body says that it has more than would be taken."""
    return isinstance(body.reader, LengthReader) and body.reader.length > MAX_LEFT_BYTES


def finish(body: Any) -> bool:
    """Take what is left, within bounds; whether that was all."""
    if not is_unread(body):
        return True
    if body.failed or is_long(body):
        return False
    taken = 0
    with suppress(OSError, ParseException), gevent.Timeout(FINISH_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
        while taken < MAX_LEFT_BYTES and (data := body.read(_PIECE_BYTES)):
            taken += len(data)
    return not is_unread(body)
