"""What is left of a request's body when its answer is on the way.

gunicorn would take the rest of it, however much that is, a KiB at a time and without letting others have their turn.
"""

from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

MAX_LEFT_BYTES = 1024 * 1024
"""More is not taken: the connection ends instead."""

FINISH_SECONDS = 10.0
_PIECE_BYTES = 64 * 1024


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
    with suppress(OSError, ParseException), gevent.Timeout(FINISH_SECONDS, False):
        while taken < MAX_LEFT_BYTES and (data := body.read(_PIECE_BYTES)):
            taken += len(data)
    return not is_unread(body)
