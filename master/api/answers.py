"""The base of every answer, the units that answers share, and the way they are sent.

An answer is one ``msgspec.Struct``: it serialises itself, and ``master.api.openapi`` describes it. The docstring below
a field is the field's description.
"""

from collections.abc import Iterable
from http import HTTPStatus
from itertools import islice
from typing import Annotated

import falcon
import msgspec
from msgspec import Meta

from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.telemetry import readings

Count = readings.Count
UnixSeconds = Annotated[int, Meta(description="Unix seconds by the master's clock")]
Time = Annotated[float, Meta(description="Unix seconds by the master's clock")]


class ResponseModel(msgspec.Struct, omit_defaults=True):
    """An object of an answer. A field with a default is left out while it has that value; others are always there."""


PRIVATE = "private, no-cache"
"""The ``Cache-Control`` of answers: no cache that several people share keeps them."""

PIECE_BYTES = 64 * 1024
ITEMS_IN_A_ROW = 64
"""Encoded, after which other greenlets have their turn."""

_ITEMS_AT_ONCE = 8
"""Encoded in one call, if they are not large."""

_ENCODER = msgspec.json.Encoder()


def encoded(body: object) -> bytes:
    """JSON of a ``Struct``, or of lists and maps of them. NaN and infinities become ``null``."""
    return _ENCODER.encode(body)


def send_array(resp: falcon.Response, items: Iterable[object], *, cache_control: str = PRIVATE) -> None:
    """Answers with a JSON array. Lets other greenlets run between two pieces, so that a large one stops nobody."""
    pieces: list[bytes] = []
    piece = bytearray(b"[")
    rest = iter(items)
    count, at_once = 0, 1
    while batch := list(islice(rest, at_once)):
        if len(piece) >= PIECE_BYTES or (count and count % ITEMS_IN_A_ROW == 0):
            pieces.append(bytes(piece))
            piece.clear()
            give_way()
        piece += b"," if count else b""
        text = encoded(batch)
        piece += memoryview(text)[1:-1]
        count += len(batch)
        # One call for several takes half the time, but a few large ones would be a piece of their own.
        at_once = _ITEMS_AT_ONCE if len(text) // len(batch) < PIECE_BYTES // _ITEMS_AT_ONCE else 1
    piece += b"]"
    pieces.append(bytes(piece))
    resp.cache_control = (cache_control,)
    resp.content_type = falcon.MEDIA_JSON
    resp.stream = pieces


def not_modified(req: falcon.Request, resp: falcon.Response, tag: str) -> bool:
    """Sets a weak ``ETag``: with and without compression the answer is the same. Answers 304 if the client has it."""
    etag = falcon.ETag(tag)
    etag.is_weak = True
    resp.set_header("ETag", etag.dumps())
    resp.cache_control = (PRIVATE,)
    if {etag, "*"}.isdisjoint(req.if_none_match or ()):
        return False
    resp.status = falcon.HTTP_304
    return True


def send_json(
    resp: falcon.Response, body: object, *, status: int = HTTPStatus.OK, cache_control: str = PRIVATE
) -> None:
    """Answers with JSON. ``body`` as for ``encoded``, or bytes that are JSON already."""
    resp.status = status
    resp.cache_control = (cache_control,)
    resp.content_type = falcon.MEDIA_JSON
    resp.data = body if isinstance(body, bytes) else encoded(body)
